// Vectors of the widest registers that a file is compiled for, in terms of GCC's and Clang's vector extensions; intrinsics
// only where the extensions have no word for an instruction. Everything is inlined, so that each variant of the CPU
// backend has its own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__) || defined(__F16C__)
#    include <immintrin.h>
#elif defined(__ARM_NEON)
#    include <arm_neon.h>
#endif

namespace turbo_simd {

#define TURBO_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#    define TURBO_AVX512
constexpr int lanes = 16;
#elif defined(__AVX2__)
#    define TURBO_AVX2
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

// Vectors of one pass over a tile: as many as the registers hold beside the sums of four rows.
constexpr int vectors = lanes == 8 ? 2 : 4;

typedef float    floats __attribute__((vector_size(4 * lanes)));
typedef double   doubles __attribute__((vector_size(8 * lanes)));
typedef int32_t  ints __attribute__((vector_size(4 * lanes)));
typedef uint16_t halves __attribute__((vector_size(2 * lanes)));

template <typename V> TURBO_INLINE V load(const void * from) {
    V v;
    memcpy(&v, from, sizeof(v));
    return v;
}

template <typename V> TURBO_INLINE void store(void * to, V v) {
    memcpy(to, &v, sizeof(v));
}

TURBO_INLINE floats splat(float x) {
    return floats{} + x;  // a negative zero is nowhere asked for
}

TURBO_INLINE floats larger(floats a, floats b) {
    return a > b ? a : b;
}

TURBO_INLINE float largest(floats v) {
    float m = v[0];
    for (int i = 1; i < lanes; ++i) {
        m = v[i] > m ? v[i] : m;
    }
    return m;
}

TURBO_INLINE double total(const doubles & v) {
    double sum = 0.0;
    for (int i = 0; i < lanes; ++i) {
        sum += v[i];
    }
    return sum;
}

TURBO_INLINE floats to_floats(ints v) {
    return __builtin_convertvector(v, floats);
}

TURBO_INLINE floats load_floats(const float * from) {
    return load<floats>(from);
}

// As many int8 as there are lanes.
TURBO_INLINE floats load_floats(const int8_t * from) {
#if defined(TURBO_AVX512)
    // the form with a mask, since GCC 12 finds something uninitialized in the plain one
    return to_floats((ints) _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128((const __m128i *) from)));
#elif defined(TURBO_AVX2)
    return to_floats((ints) _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) from)));
#elif defined(__ARM_NEON)
    return to_floats((ints) vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(load<int32_t>(from)))))));
#else
    floats v;
    for (int i = 0; i < lanes; ++i) {
        v[i] = (float) from[i];
    }
    return v;
#endif
}

// As many values of IEEE half precision as there are lanes.
TURBO_INLINE floats load_halves(const void * from) {
#if defined(TURBO_AVX512)
    return (floats) _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i *) from));
#elif defined(TURBO_AVX2) && defined(__F16C__)
    return (floats) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) from));
#elif defined(__aarch64__)
    return (floats) vcvt_f32_f16(vreinterpret_f16_u16(load<uint16x4_t>(from)));
#else
    const ints   wide     = __builtin_convertvector(load<halves>(from), ints);
    const ints   sign     = (wide & 0x8000) << 16;
    const floats finite   = (floats) ((wide & 0x7fff) << 13) * 0x1p112f;
    const ints   infinite = ((wide & 0x7c00) == 0x7c00) & 0x7f800000;
    return (floats) ((ints) finite | infinite | sign);
#endif
}

// One such value.
TURBO_INLINE float load_half(const void * from) {
#if defined(__F16C__)
    return _cvtsh_ss(load<uint16_t>(from));
#elif defined(__aarch64__)
    return (float) load<__fp16>(from);
#else
    uint16_t wide[lanes] = { load<uint16_t>(from) };
    return load_halves(wide)[0];
#endif
}

// Beyond this, scores are all alike to us: they are clamped, so that 2^n stays within the reach of the trick below.
constexpr float largest_score = 1e6f;

// The power of two next to e^x.
TURBO_INLINE int32_t power_of(float x) {
    const float clamped = x < largest_score ? x > -largest_score ? x : -largest_score : largest_score;
    return (int32_t) rintf(clamped * 1.44269504f);
}

// 2^power for a whole power <= 0 that a float holds; below the normal numbers zero.
TURBO_INLINE float power_of_two(float power) {
    const int32_t bits = power > -126.0f ? ((int32_t) power + 127) << 23 : 0;
    return load<float>(&bits);
}

// e^x * 2^-power, within 2 ulp for |x| < 10^4; below the normal numbers zero. `power` is about that of the largest
// x, and only moves the exponent: results of two powers differ by exactly a power of two. 2^n comes from the exponent's bits, the
// rest is Taylor's series on [-ln 2 / 2, ln 2 / 2].
TURBO_INLINE floats exponential(floats x, int32_t power = 0) {
    const floats magic   = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const ints   seen    = x > -largest_score;
    const floats clamped = larger(splat(-largest_score), seen ? (x < largest_score ? x : splat(largest_score)) : floats{});
    const floats shifted = clamped * 1.44269504f + magic;
    const floats n       = shifted - magic;
    const floats r       = clamped - n * 0.693359375f - n * -2.12194440e-4f;
    floats       y       = r * (1.0f / 720) + (1.0f / 120);
    y                    = y * r + (1.0f / 24);
    y                    = y * r + (1.0f / 6);
    y                    = y * r + 0.5f;
    y                    = y * r + 1.0f;
    y                    = y * r + 1.0f;
    const ints exponent  = (ints) shifted - (ints) magic - power;
    return (floats) (((ints) y + (exponent << 23)) & seen & (exponent > -126));
}

TURBO_INLINE floats hyperbolic_tangent(floats x) {
    const ints   sign = (ints) x & (int32_t) 0x80000000;
    const floats e    = exponential((floats) ((ints) x | (int32_t) 0x80000000) * 2.0f);
    return (floats) ((ints) ((1.0f - e) / (1.0f + e)) | sign);
}

// Keys are kept with this in every byte flipped: one instruction set multiplies only unsigned with signed bytes.
#if (defined(TURBO_AVX512) && defined(__AVX512VNNI__)) || (defined(TURBO_AVX2) && defined(__AVXVNNI__))
#    define TURBO_VNNI
constexpr int32_t key_bias = (int32_t) 0x80808080;
#else
constexpr int32_t key_bias = 0;
#endif

// sum + the dot products of the four int8 in each lane: keys (biased as said) with the same four of a query, which are
// within -127..127.
TURBO_INLINE ints dot4(ints sum, ints keys, int32_t query) {
    const ints four = ints{} + query;
#if defined(TURBO_VNNI) && defined(TURBO_AVX512)
    return (ints) _mm512_dpbusd_epi32((__m512i) sum, (__m512i) keys, (__m512i) four);
#elif defined(TURBO_VNNI)
    return (ints) _mm256_dpbusd_avx_epi32((__m256i) sum, (__m256i) keys, (__m256i) four);
#elif defined(TURBO_AVX512)
    const __m512i k      = (__m512i) keys;
    const __m512i flip   = _mm512_mask_sub_epi8((__m512i) four, _mm512_movepi8_mask(k), __m512i{}, (__m512i) four);
    const __m512i in_two = _mm512_maddubs_epi16(_mm512_abs_epi8(k), flip);
    return sum + (ints) _mm512_madd_epi16(in_two, _mm512_set1_epi16(1));
#elif defined(TURBO_AVX2)
    const __m256i k      = (__m256i) keys;
    const __m256i in_two = _mm256_maddubs_epi16(_mm256_abs_epi8(k), _mm256_sign_epi8((__m256i) four, k));
    return sum + (ints) _mm256_madd_epi16(in_two, _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_DOTPROD)
    return (ints) vdotq_s32((int32x4_t) sum, (int8x16_t) keys, (int8x16_t) four);
#elif defined(__ARM_NEON)
    const int8x16_t k = (int8x16_t) keys, q = (int8x16_t) four;
    const int16x8_t low  = vmull_s8(vget_low_s8(k), vget_low_s8(q));
    const int16x8_t high = vmull_s8(vget_high_s8(k), vget_high_s8(q));
    return (ints) vpadalq_s16((int32x4_t) sum, vcombine_s16(
        vpadd_s16(vget_low_s16(low), vget_high_s16(low)), vpadd_s16(vget_low_s16(high), vget_high_s16(high))));
#else
    // the byte at shift s of each lane, with its sign
    for (int s = 0; s < 32; s += 8) {
        sum += (keys << (24 - s) >> 24) * (four << (24 - s) >> 24);
    }
    return sum;
#endif
}

template <typename V, int... I> TURBO_INLINE V shuffle(V a, V b) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, ints{ I... });
#endif
}

// One step of a transposition: of two rows that are D apart, exchange the blocks of D lanes off the diagonal.
template <int D, int... J> TURBO_INLINE void exchange(ints & a, ints & b, std::integer_sequence<int, J...>) {
    const ints upper = shuffle<ints, ((J & D) ? lanes + J - D : J)...>(a, b);
    const ints lower = shuffle<ints, ((J & D) ? lanes + J : J + D)...>(a, b);
    a = upper;
    b = lower;
}

template <int D> TURBO_INLINE void exchange_all(ints * rows) {
    for (int i = 0; i < lanes; ++i) {
        if (!(i & D)) {
            exchange<D>(rows[i], rows[i + D], std::make_integer_sequence<int, lanes>{});
        }
    }
}

// A square of lanes x lanes 32-bit words, from rows that are `from_stride` words apart to rows that are `to_stride` apart,
// transposed, and each word flipped by `bias`.
TURBO_INLINE void transpose(const int32_t * from, int64_t from_stride, int32_t * to, int64_t to_stride, int32_t bias) {
    ints rows[lanes];
    for (int i = 0; i < lanes; ++i) {
        rows[i] = load<ints>(from + i * from_stride) ^ bias;
    }
    exchange_all<1>(rows);
    exchange_all<2>(rows);
    if constexpr (lanes > 4) {
        exchange_all<4>(rows);
    }
    if constexpr (lanes > 8) {
        exchange_all<8>(rows);
    }
    for (int i = 0; i < lanes; ++i) {
        store(to + i * to_stride, rows[i]);
    }
}

}  // namespace turbo_simd
