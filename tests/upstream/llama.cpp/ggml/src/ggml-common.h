// Blocks of the quantized types.
#pragma once

#ifndef __METAL_VERSION__
#include <stdint.h>
#endif

#define QK4_0 32
#define QK8_0 32

// Value j is d * (nibble - 8), and its nibble number j / 16 of qs[j % 16].
typedef struct {
    uint16_t d; // in half precision
    uint8_t  qs[QK4_0 / 2];
} block_q4_0;

// Value j is d * qs[j].
typedef struct {
    uint16_t d; // in half precision
    int8_t   qs[QK8_0];
} block_q8_0;
