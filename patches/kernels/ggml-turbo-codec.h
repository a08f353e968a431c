// The codec of the TurboQuant cache types as inline functions. ggml-turbo.c makes the portable functions of them;
// ggml-cpu-turbo.c compiles the encoder once more with the CPU's vector instructions. Apart from a few divisions and
// products at either end, which no compiler may contract or reorder, the encoder works in integers, so both give the
// same blocks everywhere.
#pragma once

#include "ggml-turbo.h"

#include <stdlib.h>
#include <string.h>

// A product and a sum must stay two roundings.
#if defined(__clang__)
#    pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#    pragma GCC optimize("fp-contract=off")
#endif

#if defined(__GNUC__) || defined(__clang__)
#    define TURBO_INLINE static inline __attribute__((always_inline, unused))
#else
#    define TURBO_INLINE static inline
#endif

// The trellis has one state for every value of the four path bits before a value.
#define TURBO_STATES 16
// Vector lanes of the encoder: sixteen radii in its first pass, sixteen start states in its second.
#define TURBO_LANES 16
// Path metrics saturate here, so that the sum of two of them fits 16 bits.
#define TURBO_METRIC_MAX 0x7fff
// The largest distance whose square does not exceed that.
#define TURBO_DISTANCE_MAX 181

#define TURBO_HALF_MAX 65504.0f
// Blocks whose largest magnitude is below this have a radius that FP16 rounds to zero.
#define TURBO_TINY 0x1p-24f

// A codebook and how the encoder measures with it: distances are counted in 1/unit of a level, and trial l scales the
// block so that its largest magnitude stands at first + l * step of these.
typedef struct {
    const int8_t * levels;
    int            count;
    int            unit;
    int            first;
    int            step;
} turbo_codebook;

#define TURBO4_CODEBOOK { ggml_turbo4_levels, 32, 2, 212, 8 }
#define TURBO3_CODEBOOK { ggml_turbo3_levels, 16, 2, 180, 12 }
#define TURBO2_CODEBOOK { ggml_turbo2_levels, 8, 1, 84, 10 }

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

// metric[i] = square of the distance from y[i] to the nearest of the eight, four or two levels of a subset.
TURBO_INLINE void turbo_metrics(const turbo_codebook * book, int levels, int subset, const int16_t * y, uint16_t * metric,
                                int n) {
    int16_t level[8];
    for (int i = 0; i < levels; ++i) {
        level[i] = (int16_t) (book->levels[4 * i + subset] * book->unit);
    }
    for (int j = 0; j < n; ++j) {
        int16_t best = TURBO_DISTANCE_MAX;
        for (int i = 0; i < levels; ++i) {
            const int16_t difference = (int16_t) (y[j] - level[i]);
            const int16_t distance   = (int16_t) abs(difference);
            best                     = distance < best ? distance : best;
        }
        metric[j] = (uint16_t) (best * best);
    }
}

// Two states that follow from the same two, a and b, by opposite path bits: in all lanes, the better way into either.
TURBO_INLINE void turbo_butterfly(const uint16_t * restrict a, const uint16_t * restrict b, const uint16_t * restrict m,
                                  const uint16_t * restrict n, uint16_t * restrict zero, uint16_t * restrict one) {
    for (int l = 0; l < TURBO_LANES; ++l) {
        const uint16_t am = (uint16_t) (a[l] + m[l]), bn = (uint16_t) (b[l] + n[l]);
        const uint16_t an = (uint16_t) (a[l] + n[l]), bm = (uint16_t) (b[l] + m[l]);
        const uint16_t z = am < bn ? am : bn, o = an < bm ? an : bm;
        zero[l] = z < TURBO_METRIC_MAX ? z : TURBO_METRIC_MAX;
        one[l]  = o < TURBO_METRIC_MAX ? o : TURBO_METRIC_MAX;
    }
}

// One value's step through the trellis. The metrics of a subset begin at metric + stride * subset.
TURBO_INLINE void turbo_step(uint16_t (*from)[TURBO_LANES], uint16_t (*to)[TURBO_LANES], const uint16_t * metric,
                             int stride) {
#if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC unroll 8
#endif
    for (int state = 0; state < TURBO_STATES / 2; ++state) {
        const int subset = turbo_subset(state, 0);
        turbo_butterfly(from[state], from[state + TURBO_STATES / 2], metric + stride * subset,
                        metric + stride * (subset ^ 2), to[2 * state], to[2 * state + 1]);
    }
}

// Scale v so that 32767 becomes peak, rounding to nearest.
TURBO_INLINE int16_t turbo_scale(int16_t v, int16_t peak) {
    return (int16_t) ((((int32_t) v * peak >> 14) + 1) >> 1);
}

// First pass: the trial radius with the smallest error, as the peak to scale the block to. All trials run side by side;
// their paths may start and end anywhere, which hardly matters for a comparison.
TURBO_INLINE int turbo_search(const turbo_codebook * book, int levels, const int16_t * v) {
    int16_t  y[QK_TURBO * TURBO_LANES], peak[TURBO_LANES];
    uint16_t metric[4][QK_TURBO * TURBO_LANES], path[2][TURBO_STATES][TURBO_LANES] = { { { 0 } } };
    for (int l = 0; l < TURBO_LANES; ++l) {
        peak[l] = (int16_t) (book->first + l * book->step);
    }
    for (int t = 0; t < QK_TURBO; ++t) {
        for (int l = 0; l < TURBO_LANES; ++l) {
            y[TURBO_LANES * t + l] = turbo_scale(v[t], peak[l]);
        }
    }
    for (int subset = 0; subset < 4; ++subset) {
        turbo_metrics(book, levels, subset, y, metric[subset], QK_TURBO * TURBO_LANES);
    }
    for (int t = 0; t < QK_TURBO; ++t) {
        turbo_step(path[t & 1], path[~t & 1], metric[0] + TURBO_LANES * t, QK_TURBO * TURBO_LANES);
    }
    uint16_t error[TURBO_LANES];
    memcpy(error, path[0][0], sizeof(error));
    for (int state = 1; state < TURBO_STATES; ++state) {
        for (int l = 0; l < TURBO_LANES; ++l) {
            error[l] = path[0][state][l] < error[l] ? path[0][state][l] : error[l];
        }
    }
    int     best  = peak[0];
    int64_t least = TURBO_METRIC_MAX;
    for (int l = 0; l < TURBO_LANES; ++l) {
        // error / peak^2 is the error in the units of the block
        if (error[l] < TURBO_METRIC_MAX && (int64_t) error[l] * best * best < least * peak[l] * peak[l]) {
            least = error[l];
            best  = peak[l];
        }
    }
    return best;
}

// Second pass: the best path at one radius among those that end in the state in which they started. Lane l holds the
// paths that start in state l.
TURBO_INLINE uint64_t turbo_find_path(const turbo_codebook * book, int levels, const int16_t * y) {
    uint16_t metric[4][QK_TURBO], path[QK_TURBO + 1][TURBO_STATES][TURBO_LANES];
    for (int subset = 0; subset < 4; ++subset) {
        turbo_metrics(book, levels, subset, y, metric[subset], QK_TURBO);
    }
    for (int state = 0; state < TURBO_STATES; ++state) {
        for (int l = 0; l < TURBO_LANES; ++l) {
            path[0][state][l] = l == state ? 0 : TURBO_METRIC_MAX;
        }
    }
    for (int t = 0; t < QK_TURBO; ++t) {
                uint16_t spread[4][TURBO_LANES];
        for (int subset = 0; subset < 4; ++subset) {
            for (int l = 0; l < TURBO_LANES; ++l) {
                spread[subset][l] = metric[subset][t];
            }
        }
        turbo_step(path[t], path[t + 1], spread[0], TURBO_LANES);
    }
    int start = 0;
    for (int l = 1; l < TURBO_LANES; ++l) {
        start = path[QK_TURBO][l][l] < path[QK_TURBO][start][start] ? l : start;
    }
    uint64_t bits = 0;
    for (int t = QK_TURBO - 1, state = start; t >= 0; --t) {
        const int before = state >> 1;
        const int subset = turbo_subset(before, state & 1);
        const int a      = path[t][before][start] + metric[subset][t];
        const int b      = path[t][before + TURBO_STATES / 2][start] + metric[subset ^ 2][t];
        bits |= (uint64_t) (state & 1) << t;
        state = b < a ? before + TURBO_STATES / 2 : before;
    }
    return bits;
}

// The level nearest to y[t] in the subset that bits 0 and 1 of its index name.
TURBO_INLINE void turbo_nearest(const turbo_codebook * book, int levels, uint64_t bit0, uint64_t bit1, const int16_t * y,
                                uint8_t * index) {
    uint8_t nearest[4][QK_TURBO];
    for (int subset = 0; subset < 4; ++subset) {
        for (int t = 0; t < QK_TURBO; ++t) {
            nearest[subset][t] = (uint8_t) subset;
        }
        for (int i = 1; i < levels; ++i) {
            const int     k        = 4 * i + subset;
            const int16_t midpoint = (int16_t) ((book->levels[k - 4] + book->levels[k]) * book->unit / 2);
            for (int t = 0; t < QK_TURBO; ++t) {
                nearest[subset][t] = (uint8_t) (nearest[subset][t] + 4 * (y[t] > midpoint));
            }
        }
    }
    for (int t = 0; t < QK_TURBO; ++t) {
        index[t] = nearest[(bit1 >> t & 1) << 1 | (bit0 >> t & 1)][t];
    }
}

// Path and indices of a block (in the order of the trellis), and its FP16 radius. Everything is zero for a block too
// small for FP16.
TURBO_INLINE uint16_t turbo_encode(const turbo_codebook * book, int levels, const float * x, uint64_t * path,
                                   uint8_t * index) {
    const float limit = TURBO_HALF_MAX * (float) book->levels[book->count - 1];
    float       a[QK_TURBO], peak = 0.0f;
    int16_t     v[QK_TURBO];
    for (int j = 0; j < QK_TURBO; ++j) {
        const float value = x[j] == x[j] ? x[j] : 0.0f;
        const float size  = value < 0.0f ? -value : value;
        a[j]              = value > limit ? limit : value < -limit ? -limit : value;
        peak              = size > peak ? size : peak;
    }
    peak  = peak > limit ? limit : peak;
    *path = 0;
    memset(index, 0, QK_TURBO);
    if (peak < TURBO_TINY) {
        return 0;
    }
    const float scale = 32767.0f / peak;
    for (int j = 0; j < QK_TURBO; ++j) {
        v[turbo_position(j)] = (int16_t) (a[j] * scale);
    }
    const int16_t best = (int16_t) turbo_search(book, levels, v);
    int16_t       y[QK_TURBO];
    for (int t = 0; t < QK_TURBO; ++t) {
        y[t] = turbo_scale(v[t], best);
    }
    *path = turbo_find_path(book, levels, y);
    turbo_nearest(book, levels, turbo_bit0(*path), turbo_bit1(*path), y, index);
    int32_t dot = 0, energy = 0;
    for (int t = 0; t < QK_TURBO; ++t) {
        const int level = book->levels[index[t]];
        dot += v[t] * level;
        energy += level * level;
    }
    // Least squares: |dot| < 64 * 2^15 * 2^7, so it fits
    const float    radius = (float) dot / (float) energy * (peak / 32767.0f);
    const uint16_t half   = dot > 0 ? turbo_float_to_half(radius < TURBO_HALF_MAX ? radius : TURBO_HALF_MAX) : 0;
    if (half == 0) {
        *path = 0;
        memset(index, 0, QK_TURBO);
    }
    return half;
}

// Pack and unpack: planes are words in the order of the trellis, pairs lie as the formats say.
TURBO_INLINE uint64_t turbo_gather_bit(const uint8_t * index, int bit) {
    uint64_t word = 0;
    for (int t = 0; t < QK_TURBO; ++t) {
        word |= (uint64_t) (index[t] >> bit & 1) << t;
    }
    return word;
}

TURBO_INLINE void turbo_pack_pairs(const uint8_t * index, uint8_t * qs) {
    for (int i = 0; i < QK_TURBO / 4; ++i) {
        uint8_t byte = 0;
        for (int pair = 0; pair < 4; ++pair) {
            byte |= (uint8_t) ((index[turbo_position(16 * pair + i)] >> 2 & 3) << 2 * pair);
        }
        qs[i] = byte;
    }
}

TURBO_INLINE void turbo_quantize_block_4(const float * x, block_turbo4 * b) {
    static const turbo_codebook book = TURBO4_CODEBOOK;
    uint64_t path;
    uint8_t  index[QK_TURBO];
    b->d = turbo_encode(&book, 8, x, &path, index);
    turbo_store_plane(b->path, path);
    turbo_pack_pairs(index, b->qs);
    turbo_store_plane(b->qh, turbo_gather_bit(index, 4));
}

TURBO_INLINE void turbo_quantize_block_3(const float * x, block_turbo3 * b) {
    static const turbo_codebook book = TURBO3_CODEBOOK;
    uint64_t path;
    uint8_t  index[QK_TURBO];
    b->d = turbo_encode(&book, 4, x, &path, index);
    turbo_store_plane(b->path, path);
    turbo_pack_pairs(index, b->qs);
}

TURBO_INLINE void turbo_quantize_block_2(const float * x, block_turbo2 * b) {
    static const turbo_codebook book = TURBO2_CODEBOOK;
    uint64_t path;
    uint8_t  index[QK_TURBO];
    b->d = turbo_encode(&book, 2, x, &path, index);
    turbo_store_plane(b->path, path);
    turbo_store_plane(b->qs, turbo_gather_bit(index, 2));
}
