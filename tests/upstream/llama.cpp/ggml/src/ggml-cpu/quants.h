// Inner products in plain C: of two rows of floats, of two in half precision, and of quantized ones with q8_0.
#pragma once

#include "ggml-cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

ggml_dot ggml_dot_f32, ggml_dot_f16, ggml_dot_q4_0, ggml_dot_q8_0;

#ifdef __cplusplus
}
#endif
