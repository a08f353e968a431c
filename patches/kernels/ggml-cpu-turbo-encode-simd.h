// The instruction sets behind ggml-cpu-turbo-encode.cpp: a step through the trellis, in 8 bits for all trials of a
// block and in 16 bits for one path search.
#pragma once

#include "ggml-turbo-encode.h"

#if defined(__SSE4_1__) || defined(__AVX__)
#    include <immintrin.h>
#    define TURBO_X86
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include <arm_neon.h>
#    define TURBO_NEON
#endif

#if defined(TURBO_X86) || defined(TURBO_NEON)

namespace {

// The subset of the codebook that leads to a state from state / 2; its counterpart leads there from the upper half.
constexpr int subset_of(int state) {
    constexpr uint8_t subsets[TURBO_STATES / 2] = { 0, 1, 3, 2, 0, 1, 3, 2, 1, 0, 2, 3, 1, 0, 2, 3 };
    return subsets[state >> 1] ^ (state & 1) << 1;
}

// Byte shuffles that bring the errors of the subsets to the lanes, for the way from the lower half of the states and
// for that from the upper one. The lanes are the states of a half of them, or in 16 bits of a quarter; the quarters of a
// half are alike.
struct Patterns {
    // 8-bit errors: for each half of the states, 16 bytes for every trial
    alignas(64) uint8_t coarse[2][2][TURBO_TRIALS][16];
    // 16-bit errors, for as many blocks as there are units in a register
    alignas(64) uint8_t exact[2][2][4][8][2];

    constexpr Patterns() : coarse(), exact() {
        for (int upper = 0; upper < 2; ++upper) {
            for (int half = 0; half < 2; ++half) {
                for (int lane = 0; lane < 16; ++lane) {
                    const int subset = subset_of(16 * half + lane) ^ upper << 1;
                    for (int trial = 0; trial < TURBO_TRIALS; ++trial) {
                        coarse[upper][half][trial][lane] = (uint8_t) (4 * trial + subset);
                    }
                    for (int unit = 0; unit < 4; ++unit) {
                        exact[upper][half][unit][lane % 8][0] = (uint8_t) (2 * subset);
                        exact[upper][half][unit][lane % 8][1] = (uint8_t) (2 * subset + 1);
                    }
                }
            }
        }
    }
};
constexpr Patterns patterns;

// A register is a number of units of 16 bytes, and works on each of them alike.
#    if defined(TURBO_NEON)

struct Unit {
    using type                = uint8x16_t;
    static constexpr int size = 1;
    static type load(const uint8_t * p) { return vld1q_u8(p); }
    static type load_in_all(const uint8_t * p) { return vld1q_u8(p); }
    static void store(uint8_t * p, type a) { vst1q_u8(p, a); }
    static type zero() { return vdupq_n_u8(0); }
    static type shuffle(type a, type pattern) { return vqtbl1q_u8(a, pattern); }
    static type low_twice(type a) { return vzip1q_u8(a, a); }
    static type high_twice(type a) { return vzip2q_u8(a, a); }
    static type add(type a, type b) { return vqaddq_u8(a, b); }
    static type subtract(type a, type b) { return vsubq_u8(a, b); }
    static type least(type a, type b) { return vminq_u8(a, b); }
    static type most(type a, type b) { return vmaxq_u8(a, b); }
    static type least_in_all(type a) { return vdupq_n_u8(vminvq_u8(a)); }

    static type errors(const uint16_t * const * error) {
        uint64_t four;
        memcpy(&four, error[0], sizeof(four));
        return vreinterpretq_u8_u64(vdupq_n_u64(four));
    }
    static type far_16() { return vreinterpretq_u8_u16(vdupq_n_u16(TURBO_METRIC_MAX)); }
    static type low_twice_16(type a) { return vreinterpretq_u8_u16(vzip1q_u16(of_16(a), of_16(a))); }
    static type high_twice_16(type a) { return vreinterpretq_u8_u16(vzip2q_u16(of_16(a), of_16(a))); }
    static type add_16(type a, type b) { return vreinterpretq_u8_s16(vqaddq_s16(signed_16(a), signed_16(b))); }
    static type least_16(type a, type b) { return vreinterpretq_u8_s16(vminq_s16(signed_16(a), signed_16(b))); }
    // A word for each unit, with bit `state` where a is more than b.
    static void store_more(uint32_t * to, const type * a, const type * b) {
        const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201u));
        uint8x16_t       half[2];
        for (int i = 0; i < 2; ++i) {
            half[i] = vandq_u8(vuzp1q_u8(more(a[2 * i], b[2 * i]), more(a[2 * i + 1], b[2 * i + 1])), bits);
        }
        uint8x16_t sum = vpaddq_u8(half[0], half[1]);
        sum            = vpaddq_u8(sum, sum);
        vst1q_lane_u32(to, vreinterpretq_u32_u8(vpaddq_u8(sum, sum)), 0);
    }

    static uint16x8_t of_16(type a) { return vreinterpretq_u16_u8(a); }
    static int16x8_t  signed_16(type a) { return vreinterpretq_s16_u8(a); }
    static type       more(type a, type b) { return vreinterpretq_u8_u16(vcgtq_s16(signed_16(a), signed_16(b))); }
};

#    else

#        if defined(__AVX512BW__) && defined(__AVX512VL__)

struct Unit {
    using type                = __m512i;
    static constexpr int size = 4;
    static type load(const uint8_t * p) { return _mm512_loadu_si512(p); }
    static type load_in_all(const uint8_t * p) {
        // with a mask, for gcc takes the plain one for an uninitialized value
        return _mm512_maskz_broadcast_i32x4(0xffff, _mm_loadu_si128((const __m128i *) p));
    }
    static void store(uint8_t * p, type a) { _mm512_storeu_si512(p, a); }
    static type zero() { return _mm512_setzero_si512(); }
    static type shuffle(type a, type pattern) { return _mm512_shuffle_epi8(a, pattern); }
    static type low_twice(type a) { return _mm512_unpacklo_epi8(a, a); }
    static type high_twice(type a) { return _mm512_unpackhi_epi8(a, a); }
    static type add(type a, type b) { return _mm512_adds_epu8(a, b); }
    static type subtract(type a, type b) { return _mm512_sub_epi8(a, b); }
    static type least(type a, type b) { return _mm512_min_epu8(a, b); }
    static type most(type a, type b) { return _mm512_max_epu8(a, b); }
    static type least_in_all(type a) {
        a = _mm512_min_epu8(a, _mm512_alignr_epi8(a, a, 8));
        a = _mm512_min_epu8(a, _mm512_alignr_epi8(a, a, 4));
        a = _mm512_min_epu8(a, _mm512_alignr_epi8(a, a, 2));
        return _mm512_min_epu8(a, _mm512_alignr_epi8(a, a, 1));
    }

    static type errors(const uint16_t * const * error) {
        const __m256i low  = _mm256_inserti128_si256(_mm256_castsi128_si256(four(error[0])), four(error[1]), 1);
        const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(four(error[2])), four(error[3]), 1);
        return _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1);  // with a mask, as above
    }
    static type far_16() { return _mm512_set1_epi16(TURBO_METRIC_MAX); }
    static type low_twice_16(type a) { return _mm512_unpacklo_epi16(a, a); }
    static type high_twice_16(type a) { return _mm512_unpackhi_epi16(a, a); }
    static type add_16(type a, type b) { return _mm512_adds_epi16(a, b); }
    static type least_16(type a, type b) { return _mm512_min_epi16(a, b); }
    // A word for each unit, with bit `state` where a is more than b.
    static void store_more(uint32_t * to, const type * a, const type * b) {
        uint64_t half[2];  // 16 bits for each unit; by the sign of the difference
        for (int i = 0; i < 2; ++i) {
            const type even = _mm512_subs_epi16(b[2 * i], a[2 * i]), odd = _mm512_subs_epi16(b[2 * i + 1], a[2 * i + 1]);
            half[i]         = _mm512_movepi8_mask(_mm512_packs_epi16(even, odd));
        }
        _mm_storeu_si128((__m128i *) to, _mm_unpacklo_epi16(_mm_cvtsi64_si128((int64_t) half[0]),
                                                            _mm_cvtsi64_si128((int64_t) half[1])));
    }

    static __m128i four(const uint16_t * error) { return _mm_loadl_epi64((const __m128i *) error); }
};

#        elif defined(__AVX2__)

struct Unit {
    using type                = __m256i;
    static constexpr int size = 2;
    static type load(const uint8_t * p) { return _mm256_loadu_si256((const __m256i *) p); }
    static type load_in_all(const uint8_t * p) {
        return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) p));
    }
    static void store(uint8_t * p, type a) { _mm256_storeu_si256((__m256i *) p, a); }
    static type zero() { return _mm256_setzero_si256(); }
    static type shuffle(type a, type pattern) { return _mm256_shuffle_epi8(a, pattern); }
    static type low_twice(type a) { return _mm256_unpacklo_epi8(a, a); }
    static type high_twice(type a) { return _mm256_unpackhi_epi8(a, a); }
    static type add(type a, type b) { return _mm256_adds_epu8(a, b); }
    static type subtract(type a, type b) { return _mm256_sub_epi8(a, b); }
    static type least(type a, type b) { return _mm256_min_epu8(a, b); }
    static type most(type a, type b) { return _mm256_max_epu8(a, b); }
    static type least_in_all(type a) {
        a = _mm256_min_epu8(a, _mm256_alignr_epi8(a, a, 8));
        a = _mm256_min_epu8(a, _mm256_alignr_epi8(a, a, 4));
        a = _mm256_min_epu8(a, _mm256_alignr_epi8(a, a, 2));
        return _mm256_min_epu8(a, _mm256_alignr_epi8(a, a, 1));
    }

    static type errors(const uint16_t * const * error) {
        return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *) error[0])),
                                       _mm_loadl_epi64((const __m128i *) error[1]), 1);
    }
    static type far_16() { return _mm256_set1_epi16(TURBO_METRIC_MAX); }
    static type low_twice_16(type a) { return _mm256_unpacklo_epi16(a, a); }
    static type high_twice_16(type a) { return _mm256_unpackhi_epi16(a, a); }
    static type add_16(type a, type b) { return _mm256_adds_epi16(a, b); }
    static type least_16(type a, type b) { return _mm256_min_epi16(a, b); }
    // A word for each unit, with bit `state` where a is more than b.
    static void store_more(uint32_t * to, const type * a, const type * b) {
        int half[2];  // 16 bits for each unit
        for (int i = 0; i < 2; ++i) {
            half[i] = _mm256_movemask_epi8(_mm256_packs_epi16(_mm256_cmpgt_epi16(a[2 * i], b[2 * i]),
                                                              _mm256_cmpgt_epi16(a[2 * i + 1], b[2 * i + 1])));
        }
        _mm_storel_epi64((__m128i *) to, _mm_unpacklo_epi16(_mm_cvtsi32_si128(half[0]), _mm_cvtsi32_si128(half[1])));
    }
};

#        else

struct Unit {
    using type                = __m128i;
    static constexpr int size = 1;
    static type load(const uint8_t * p) { return _mm_loadu_si128((const __m128i *) p); }
    static type load_in_all(const uint8_t * p) { return _mm_loadu_si128((const __m128i *) p); }
    static void store(uint8_t * p, type a) { _mm_storeu_si128((__m128i *) p, a); }
    static type zero() { return _mm_setzero_si128(); }
    static type shuffle(type a, type pattern) { return _mm_shuffle_epi8(a, pattern); }
    static type low_twice(type a) { return _mm_unpacklo_epi8(a, a); }
    static type high_twice(type a) { return _mm_unpackhi_epi8(a, a); }
    static type add(type a, type b) { return _mm_adds_epu8(a, b); }
    static type subtract(type a, type b) { return _mm_sub_epi8(a, b); }
    static type least(type a, type b) { return _mm_min_epu8(a, b); }
    static type most(type a, type b) { return _mm_max_epu8(a, b); }
    static type least_in_all(type a) {
        a = _mm_min_epu8(a, _mm_alignr_epi8(a, a, 8));
        a = _mm_min_epu8(a, _mm_alignr_epi8(a, a, 4));
        a = _mm_min_epu8(a, _mm_alignr_epi8(a, a, 2));
        return _mm_min_epu8(a, _mm_alignr_epi8(a, a, 1));
    }

    static type errors(const uint16_t * const * error) { return _mm_loadl_epi64((const __m128i *) error[0]); }
    static type far_16() { return _mm_set1_epi16(TURBO_METRIC_MAX); }
    static type low_twice_16(type a) { return _mm_unpacklo_epi16(a, a); }
    static type high_twice_16(type a) { return _mm_unpackhi_epi16(a, a); }
    static type add_16(type a, type b) { return _mm_adds_epi16(a, b); }
    static type least_16(type a, type b) { return _mm_min_epi16(a, b); }
    // A word for each unit, with bit `state` where a is more than b.
    static void store_more(uint32_t * to, const type * a, const type * b) {
        int half[2];
        for (int i = 0; i < 2; ++i) {
            half[i] = _mm_movemask_epi8(
                _mm_packs_epi16(_mm_cmpgt_epi16(a[2 * i], b[2 * i]), _mm_cmpgt_epi16(a[2 * i + 1], b[2 * i + 1])));
        }
        *to = (uint32_t) half[0] | (uint32_t) half[1] << 16;
    }
};

#        endif

#    endif

}  // namespace

#endif
