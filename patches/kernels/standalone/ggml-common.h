// Just enough of ggml's header for the kernels to compile without ggml.
#pragma once
#include <stdint.h>
#define QK8_0 32
typedef struct {
    uint16_t d;
    int8_t   qs[QK8_0];
} block_q8_0;
