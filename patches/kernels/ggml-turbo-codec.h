// What encoder and decoders of the TurboQuant cache types share, as inline functions.
#pragma once

#include "ggml-turbo.h"

#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#    define TURBO_INLINE static inline __attribute__((always_inline, unused))
#else
#    define TURBO_INLINE static inline
#endif

// The trellis has one state for every value of the path bits before a value.
#define TURBO_PAST 5
#define TURBO_STATES (1 << TURBO_PAST)
// States in which a path may begin: the radius has room for four bits, the oldest one is zero.
#define TURBO_STARTS (TURBO_STATES / 2)
#define TURBO_HALF_MAX 65504.0f
// A radius of one is so many times a level.
#define TURBO_UNIT 128
// Blocks whose largest magnitude is below this are zero: FP16 has no radius for them with any four low bits.
#define TURBO_TINY 0x1p-18f

// A codebook by its upper half
#define TURBO_64(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, A, B, C, D, E, F)          \
    { -F, -E, -D, -C, -B, -A, -z, -y, -x, -w, -v, -u, -t, -s, -r, -q, -p, -o, -n, -m, -l, -k, -j, -i, -h, -g, -f, -e, -d, \
      -c, -b, -a, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, A, B, C, D, E, F }
#define TURBO_32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
    { -p, -o, -n, -m, -l, -k, -j, -i, -h, -g, -f, -e, -d, -c, -b, -a, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p }
#define TURBO_16(a, b, c, d, e, f, g, h) { -h, -g, -f, -e, -d, -c, -b, -a, a, b, c, d, e, f, g, h }
#define TURBO_8(a, b, c, d) { -d, -c, -b, -a, a, b, c, d }

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

// What a level is multiplied by.
TURBO_INLINE float turbo_scale_of(uint16_t radius) {
    return turbo_half_to_float(radius) * (1.0f / TURBO_UNIT);
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

// The five path bits before the first value, from the radius; bit 4 is the last of them, bit 0 is zero.
TURBO_INLINE uint64_t turbo_past(uint16_t radius) {
    return (uint64_t) (radius & (TURBO_STARTS - 1)) << 1;
}

// Bits 0 and 1 of all indices from the path: a convolutional code over the path bits and those before.
TURBO_INLINE uint64_t turbo_bit0(uint64_t path, uint64_t past) {
    return path << 1 ^ path << 2 ^ path << 4 ^ past >> 4 ^ past >> 3 ^ past >> 1;
}

TURBO_INLINE uint64_t turbo_bit1(uint64_t path, uint64_t past) {
    return path ^ path << 2 ^ path << 5 ^ past >> 3 ^ past;
}

// The index of value j of a block, whose trellis gives the words bit0 and bit1.
TURBO_INLINE uint8_t turbo_index(uint64_t bit0, uint64_t bit1, const uint8_t * raw, int count, int j) {
    const int       t     = turbo_position(j);
    const uint8_t * pairs = raw + count % 2 * (QK_TURBO / 8);
    int             index = (int) (bit1 >> t & 1) << 1 | (int) (bit0 >> t & 1);
    for (int bit = 0; bit + 1 < count; bit += 2, pairs += QK_TURBO / 4) {
        index |= (pairs[j % 16] >> 2 * (j / 16) & 3) << (2 + bit);
    }
    if (count % 2) {
        index |= (raw[j % 8] >> j / 8 & 1) << (1 + count);
    }
    return (uint8_t) index;
}

// Which of the codebooks.
TURBO_INLINE int turbo_book(uint16_t radius) {
    return radius >> 15;
}

// The same for one value: subset of the codebook reached from a state (bit i: the path bit i + 1 values ago) by a path
// bit. The oldest bit takes part in bit 1 alone.
TURBO_INLINE int turbo_subset(int state, int bit) {
    static const uint8_t subsets[TURBO_STATES / 2] = { 0, 1, 3, 2, 0, 1, 3, 2, 1, 0, 2, 3, 1, 0, 2, 3 };
    return subsets[state % (TURBO_STATES / 2)] ^ (bit ^ state / (TURBO_STATES / 2)) << 1;
}
