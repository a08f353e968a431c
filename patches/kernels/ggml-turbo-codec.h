// What encoder and decoders of the TurboQuant cache types share, as inline functions.
#pragma once

#include "ggml-turbo.h"

#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#    define TURBO_INLINE static inline __attribute__((always_inline, unused))
#else
#    define TURBO_INLINE static inline
#endif

// The trellis has one state for every value of the four path bits before a value.
#define TURBO_STATES 16
#define TURBO_HALF_MAX 65504.0f
// Blocks whose largest magnitude is below this have a radius that FP16 rounds to zero.
#define TURBO_TINY 0x1p-24f

// The codebooks, in ascending order. Trained on N(0,1) with the encoder as it is, times the factor below 127 / highest that
// rounding hurts least. Level k belongs to subset k % 4, so the neighbours within a subset are four levels apart.
#define TURBO4_LEVELS                                                  \
    { -116, -95, -80, -69, -60, -52, -46, -40, -34, -29, -24, -20, -15, -11, -6, -2, \
      2, 6, 11, 15, 20, 24, 29, 34, 40, 46, 52, 60, 69, 80, 95, 116 }
#define TURBO3_LEVELS { -94, -66, -49, -37, -27, -19, -11, -4, 4, 11, 19, 27, 37, 49, 66, 94 }
#define TURBO2_LEVELS { -92, -51, -28, -9, 9, 28, 51, 92 }

TURBO_INLINE float turbo_half_to_float(uint16_t half) {
    const uint32_t sign     = (uint32_t) (half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t mantissa = half & 0x3ff;
    float          value;
    if (exponent == 0) {
        value = (float) mantissa * 0x1p-24f;
    } else {
        const uint32_t bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
        memcpy(&value, &bits, sizeof(value));
    }
    return sign ? -value : value;
}

TURBO_INLINE uint16_t turbo_float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const uint16_t sign = (uint16_t) ((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000u) {
        return sign | 0x7e00;
    }
    if (bits >= 0x477ff000u) {  // 65520 and above round to infinity
        return sign | 0x7c00;
    }
    if (bits < 0x38800000u) {  // subnormal: adding one half aligns the mantissa and rounds to even
        float magnitude;
        memcpy(&magnitude, &bits, sizeof(magnitude));
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof(bits));
        return sign | (uint16_t) (bits - 0x3f000000u);
    }
    const uint32_t odd = (bits >> 13) & 1;
    return sign | (uint16_t) ((bits + 0x0fff + odd - 0x38000000u) >> 13);
}

// Planes hold one bit per value; as 64-bit words, bit 8 * (j % 8) + j / 8 belongs to value j. The trellis runs through
// the values in the order of these bits.
TURBO_INLINE int turbo_position(int j) {
    return 8 * (j % 8) + j / 8;
}

TURBO_INLINE uint64_t turbo_load_plane(const uint8_t * plane) {
    uint64_t word = 0;
    for (int i = 0; i < 8; ++i) {
        word |= (uint64_t) plane[i] << 8 * i;
    }
    return word;
}

TURBO_INLINE void turbo_store_plane(uint8_t * plane, uint64_t word) {
    for (int i = 0; i < 8; ++i) {
        plane[i] = (uint8_t) (word >> 8 * i);
    }
}

TURBO_INLINE uint64_t turbo_rotate(uint64_t word, int n) {
    return word << n | word >> (64 - n);
}

// Bits 0 and 1 of all indices from the path: a convolutional code over the path bits, which wrap around.
TURBO_INLINE uint64_t turbo_bit0(uint64_t path) {
    return turbo_rotate(path, 1) ^ turbo_rotate(path, 2) ^ turbo_rotate(path, 3);
}

TURBO_INLINE uint64_t turbo_bit1(uint64_t path) {
    return path ^ turbo_rotate(path, 1) ^ turbo_rotate(path, 4);
}

// The same for one value: subset of the codebook reached from a state (bit i: the path bit i + 1 values ago) by a path
// bit. The oldest bit takes part in bit 1 alone.
TURBO_INLINE int turbo_subset(int state, int bit) {
    static const uint8_t subsets[TURBO_STATES] = { 0, 3, 1, 2, 1, 2, 0, 3, 2, 1, 3, 0, 3, 0, 2, 1 };
    return subsets[state] ^ bit << 1;
}
