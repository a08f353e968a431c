// TurboQuant KV-cache types: turbo5, turbo4, turbo3 and turbo2.
//
// A block is 64 values (one head of 64, half a head of 128): an FP16 radius and for each value an index of 6, 5, 4 or
// 3 bits into a fixed codebook of small integers. A value decodes as radius / 128 * level[index], with no zero point. There
// are two codebooks, and the radius' sign says which. The cache stores vectors after a Hadamard rotation, whose
// coordinates are close to Gaussian; the first codebook is trained on N(0,1) by Lloyd's rule (every level is the mean of
// what the encoder assigns to it). The second is for blocks of nearly equal magnitudes, which a single large channel
// makes of a rotated head, and for those where a few values outweigh all others. Levels are integers, which makes dot
// products with q8_0 integer work.
//
// An index takes one bit less to store than it has, by a trellis: its two low bits, c1 c0, come from one path bit u per
// value and the path bits of the five values before it, in a fixed order of the values:
//     c0[t] = u[t-1] ^ u[t-2] ^ u[t-4]        c1[t] = u[t] ^ u[t-2] ^ u[t-5]
// With the path bits as a 64-bit word, that is shifts and exclusive ors for the whole block at once, so decoding is as
// parallel as with plain indices. The four path bits before the first value are the lowest bits of the radius, the one before
// these is zero: the encoder takes whichever it likes, and the radius nearest to the best one that has them. It searches path
// and radius (Viterbi).
// The gain over the best scalar codebook of the same size is about 2 dB of the 4 to 5 dB by which that misses the
// rate-distortion bound.
//
// This file and ggml-turbo.c are the reference: plain C, no dependency on ggml unless GGML_TURBO_STANDALONE is off.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml-turbo-types.h"

#ifdef GGML_TURBO_STANDALONE
#    define GGML_API extern
#else
#    include "ggml.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define QK_TURBO 64

// A plane is 8 bytes with one bit per value: value j (0..63) has bit j / 8 of byte j % 8. Read as a little-endian word,
// its bits from the lowest are the values in the order of the trellis: t = 8 * (j % 8) + j / 8. Pairs are 16 bytes with
// two bits per value: pair j / 16 of byte j % 16.

// path: u. Index from bit 0 up: c0, c1, the raw bits. Of these the pairs are stored behind a plane of the last one, which
// there is if they are odd in number: turbo5 has pairs twice, turbo4 a plane and pairs, turbo3 pairs, turbo2 a plane.
#define TURBO_BLOCK(ID, id, RAW)              \
    typedef struct {                          \
        uint16_t d;                           \
        uint8_t  path[QK_TURBO / 8];          \
        uint8_t  raw[(RAW) * (QK_TURBO / 8)]; \
    } block_##id;
TURBO_TYPES(TURBO_BLOCK)

#ifndef __cplusplus
#    define TURBO_SIZE(ID, id, RAW) _Static_assert(sizeof(block_##id) == 10 + 8 * (RAW), #id " has no padding");
TURBO_TYPES(TURBO_SIZE)
#endif

// For each type:
// - levels: its codebooks in ascending order, symmetric about zero; the second goes with a negative radius.
// - quantize_row: quantizes k values (a multiple of 64) from x to the blocks at y. Any float is accepted: NaN counts as
//   zero, and what lies beyond the largest radius saturates; the result always decodes to finite values, the same on every
//   platform.
// - dequantize_row: decodes k values (a multiple of 64).
// - levels_row: decodes k values (a multiple of 64) to integers: k levels in order, and for every 64 of them a scale,
//   radius / 128. A value is scale * level, exactly as dequantize_row computes it.
// - indices: the indices of one block, in order of the values.
#define TURBO_FUNCTIONS(ID, id, RAW)                                                                         \
    GGML_API const int8_t ggml_##id##_levels[2][4 << (RAW)];                                                 \
    GGML_API void         ggml_##id##_quantize_row(const float * x, void * y, int64_t k);                    \
    GGML_API void         ggml_##id##_dequantize_row(const void * x, float * y, int64_t k);                  \
    GGML_API void         ggml_##id##_levels_row(const void * x, int8_t * levels, float * scale, int64_t k); \
    GGML_API void         ggml_##id##_indices(const block_##id * x, uint8_t * index);
TURBO_TYPES(TURBO_FUNCTIONS)

// IEEE half precision, rounded to nearest even; bit-exact on every platform.
GGML_API float    ggml_turbo_half_to_float(uint16_t half);
GGML_API uint16_t ggml_turbo_float_to_half(float value);

#ifdef __cplusplus
}
#endif

#ifndef GGML_TURBO_STANDALONE

#    ifdef __cplusplus
extern "C" {
#    endif

// Whether nbytes of the type are whole blocks with finite radii.
GGML_API bool ggml_turbo_validate_row(enum ggml_type type, const void * data, size_t nbytes);

// Quantize rows; the number of bytes written. The signature is that of the other quantizers in ggml_quantize_chunk.
GGML_API size_t ggml_turbo_quantize(
    enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row);

#    ifdef __cplusplus
}
#    endif

// The labels of our types, for a switch.
#    define GGML_TURBO_CASE(ID, id, RAW) case GGML_TYPE_##ID:
#    define GGML_TURBO_CASES TURBO_TYPES(GGML_TURBO_CASE)

// Entries for the table of struct ggml_type_traits.
#    define GGML_TURBO_TRAITS_OF(ID, id, RAW)                               \
        [GGML_TYPE_##ID] = {                                                \
            .type_name      = #id,                                          \
            .blck_size      = QK_TURBO,                                     \
            .type_size      = sizeof(block_##id),                           \
            .is_quantized   = true,                                         \
            .to_float       = (ggml_to_float_t) ggml_##id##_dequantize_row, \
            .from_float_ref = (ggml_from_float_t) ggml_##id##_quantize_row, \
        },
#    define GGML_TURBO_TRAITS TURBO_TYPES(GGML_TURBO_TRAITS_OF)

#endif
