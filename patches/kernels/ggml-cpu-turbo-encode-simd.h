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

// In 8 bits a lane is a state of the reference. In 16 bits its number is the state's with the bits in reverse, so that
// the bit by which a path came becomes the lowest one, and a path is read by shifting it in.
constexpr int reverse(int state) {
    return (state & 1) << 3 | (state & 2) << 1 | (state & 4) >> 1 | state >> 3;
}

// The subset of the codebook that leads to a state from state / 2; its counterpart leads there from state / 2 + 8.
constexpr int subset_of(int state) {
    constexpr uint8_t subsets[TURBO_STATES / 2] = { 0, 3, 1, 2, 1, 2, 0, 3 };
    return subsets[state >> 1] ^ (state & 1) << 1;
}

// Byte shuffles that bring the errors of the subsets to the lanes, for the way from the lower half of the states and
// for that from the upper one.
struct Patterns {
    // 8-bit errors; 16 bytes for every trial
    alignas(64) uint8_t coarse[2][TURBO_TRIALS][TURBO_STATES];
    // 16-bit errors
    alignas(64) uint8_t exact[2][TURBO_STATES][2];

    constexpr Patterns() : coarse(), exact() {
        for (int upper = 0; upper < 2; ++upper) {
            for (int state = 0; state < TURBO_STATES; ++state) {
                const int subset = subset_of(state) ^ upper << 1;
                for (int trial = 0; trial < TURBO_TRIALS; ++trial) {
                    coarse[upper][trial][state] = (uint8_t) (4 * trial + subset);
                }
                exact[upper][reverse(state)][0] = (uint8_t) (2 * subset);
                exact[upper][reverse(state)][1] = (uint8_t) (2 * subset + 1);
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
};

// The metrics of a turn, and its step: how each lane is reached from lanes 2l and 2l + 1, or 2l - 16 and 2l - 15.
struct States {
    int16x8_t low, high;
};
using Came                   = uint64_t;
constexpr int bits_per_lane = 4;

inline States load_states(const uint16_t * p) {
    return { vreinterpretq_s16_u16(vld1q_u16(p)), vreinterpretq_s16_u16(vld1q_u16(p + 8)) };
}

inline void store_states(uint16_t * p, States s) {
    vst1q_u16(p, vreinterpretq_u16_s16(s.low));
    vst1q_u16(p + 8, vreinterpretq_u16_s16(s.high));
}

inline int16x8_t errors(uint8x16_t all, int upper) {
    return vreinterpretq_s16_u8(vqtbl1q_u8(all, vld1q_u8(patterns.exact[upper][0])));
}

inline Came step(States & s, const uint16_t * error) {
    uint64_t four;
    memcpy(&four, error, sizeof(four));
    const uint8x16_t all = vreinterpretq_u8_u64(vdupq_n_u64(four));
    const int16x8_t  even = vuzp1q_s16(s.low, s.high), odd = vuzp2q_s16(s.low, s.high);
    const int16x8_t  near = errors(all, 0), far = errors(all, 1);  // they change places with the path bit
    const int16x8_t  a0 = vqaddq_s16(even, near), a1 = vqaddq_s16(even, far);
    const int16x8_t  b0 = vqaddq_s16(odd, far), b1 = vqaddq_s16(odd, near);
    s.low               = vminq_s16(a0, b0);
    s.high              = vminq_s16(a1, b1);
    const uint8x16_t less = vuzp1q_u8(vreinterpretq_u8_u16(vcgtq_s16(a0, b0)), vreinterpretq_u8_u16(vcgtq_s16(a1, b1)));
    return vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(less), 4)), 0);
}

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
};

#        endif

#        if defined(__AVX2__)

using States                 = __m256i;
using Came                   = uint32_t;
constexpr int bits_per_lane = 2;

inline States load_states(const uint16_t * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

inline void store_states(uint16_t * p, States s) {
    _mm256_storeu_si256((__m256i *) p, s);
}

inline Came step(States & s, const uint16_t * error) {
    const __m256i all = _mm256_castpd_si256(_mm256_broadcast_sd((const double *) error));
    // even lanes in quarters 0 and 2, odd ones in 1 and 3
    const __m256i from  = _mm256_shuffle_epi8(
        s, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)));
    const __m256i near  = _mm256_shuffle_epi8(all, _mm256_load_si256((const __m256i *) patterns.exact[0]));
    const __m256i far   = _mm256_shuffle_epi8(all, _mm256_load_si256((const __m256i *) patterns.exact[1]));
    const __m256i a     = _mm256_adds_epi16(_mm256_permute4x64_epi64(from, 0x88), near);
    const __m256i b     = _mm256_adds_epi16(_mm256_permute4x64_epi64(from, 0xdd), far);
    s                  = _mm256_min_epi16(a, b);
    return (uint32_t) _mm256_movemask_epi8(_mm256_cmpgt_epi16(a, b));
}

#        else

struct States {
    __m128i low, high;
};
using Came                   = uint16_t;
constexpr int bits_per_lane = 1;

inline States load_states(const uint16_t * p) {
    return { _mm_loadu_si128((const __m128i *) p), _mm_loadu_si128((const __m128i *) (p + 8)) };
}

inline void store_states(uint16_t * p, States s) {
    _mm_storeu_si128((__m128i *) p, s.low);
    _mm_storeu_si128((__m128i *) (p + 8), s.high);
}

inline __m128i errors(__m128i all, int upper) {
    return _mm_shuffle_epi8(all, _mm_load_si128((const __m128i *) patterns.exact[upper][0]));
}

inline Came step(States & s, const uint16_t * error) {
    const __m128i four = _mm_loadl_epi64((const __m128i *) error), all = _mm_unpacklo_epi64(four, four);
    const __m128i split = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m128i lower = _mm_shuffle_epi8(s.low, split), upper = _mm_shuffle_epi8(s.high, split);
    const __m128i even = _mm_unpacklo_epi64(lower, upper), odd = _mm_unpackhi_epi64(lower, upper);
    const __m128i near = errors(all, 0), far = errors(all, 1);  // they change places with the path bit
    const __m128i a0 = _mm_adds_epi16(even, near), a1 = _mm_adds_epi16(even, far);
    const __m128i b0 = _mm_adds_epi16(odd, far), b1 = _mm_adds_epi16(odd, near);
    s.low            = _mm_min_epi16(a0, b0);
    s.high           = _mm_min_epi16(a1, b1);
    return (uint16_t) _mm_movemask_epi8(_mm_packs_epi16(_mm_cmpgt_epi16(a0, b0), _mm_cmpgt_epi16(a1, b1)));
}

#        endif
#    endif

}  // namespace

#endif
