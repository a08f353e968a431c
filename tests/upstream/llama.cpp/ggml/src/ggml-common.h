// Blocks of the quantized types.
#pragma once

#ifndef __METAL_VERSION__
#include <stdint.h>
#endif

#ifdef __METAL_VERSION__
typedef ushort ggml_half; // the bits of one
#else
typedef uint16_t ggml_half;
#endif

#define QK4_0 32
#define QK8_0 32

// Value j is d * (nibble - 8), and its nibble number j / 16 of qs[j % 16].
typedef struct {
    ggml_half d;
    uint8_t   qs[QK4_0 / 2];
} block_q4_0;

// Value j is d * qs[j].
typedef struct {
    ggml_half d;
    int8_t    qs[QK8_0];
} block_q8_0;
