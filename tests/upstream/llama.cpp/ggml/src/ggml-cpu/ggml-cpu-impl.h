#pragma once

#include "ggml-cpu.h"
#include "ggml-impl.h"
