// Where a CPU has instructions for the conversions they would be chosen here; the miniature has plain C alone.
#pragma once

#include "ggml-impl.h"

#define GGML_CPU_FP16_TO_FP32(x) GGML_FP16_TO_FP32(x)
#define GGML_CPU_FP32_TO_FP16(x) GGML_FP32_TO_FP16(x)
