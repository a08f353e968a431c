// The TurboQuant cache types on the CPU: decoders and dot products with q8_0, for the instruction set that this file is
// compiled for. Every variant gives the same bits as the plain C at the end of each selection: levels are
// integers, and floats are added in sixteen lanes (lane l: values 4l to 4l + 3 of a block) in a fixed order.

#include "ggml-cpu-turbo.h"
#include "ggml-turbo-codec.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include <assert.h>

// A product and a sum must stay two roundings.
#if defined(__clang__)
#    pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#    pragma GCC optimize("fp-contract=off")
#endif

_Static_assert(QK_TURBO == 2 * QK8_0, "a turbo block faces two blocks of q8_0");

#define LANES 16

#if defined(__AVX512BW__) && defined(__AVX512VBMI__) && defined(__AVX512VNNI__)
#    include <immintrin.h>
#    define TURBO_AVX512
#elif defined(__AVX2__)
#    include <immintrin.h>
#    define TURBO_AVX2
#elif defined(__F16C__)  // with nothing else: an Ivy Bridge
#    include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#    include <arm_neon.h>
#    define TURBO_NEON
#endif

static inline float to_float(uint16_t half) {
#if defined(__F16C__)
    return _cvtsh_ss(half);
#elif defined(TURBO_NEON)
    __fp16 value;
    memcpy(&value, &half, sizeof(value));
    return value;
#else
    return turbo_half_to_float(half);
#endif
}

static inline uint64_t load_word(const uint8_t * bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

static inline float scale_of(uint16_t radius) {
    return to_float(radius) * (1.0f / TURBO_UNIT);
}

// Lanes are added by halves: lane l and l + 8, then l and l + 4, and so on.
#if defined(TURBO_AVX512) || defined(TURBO_AVX2)
static inline float total_of_8(__m256 lanes) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 two  = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#endif

// Byte j of a block's levels is selected by its index, whose bits are brought together from the planes: group g of eight
// values takes bit g of every byte of a plane. `raw` of these bits are stored as they are; the compiler knows how many, so
// that decode() has no branches.

#if defined(TURBO_AVX512)

typedef __m512i vector;
typedef __m512  sums;

// Bit g of every byte, for g = 0..7 in turn, moved to a given bit. What else remains in a byte is masked later.
static inline __m512i spread(uint64_t plane, int bit) {
    const __m512i group = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_rorv_epi64(_mm512_set1_epi64((int64_t) plane), _mm512_sub_epi64(group, _mm512_set1_epi64(bit)));
}

static inline __m512i spread_pairs(const uint8_t * qs) {  // to bits 2 and 3
    const __m512i pairs = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) qs));
    return _mm512_rorv_epi64(pairs, _mm512_set_epi64(4, 4, 2, 2, 0, 0, -2, -2));
}

// The bits of a where mask has ones, else those of b.
static inline __m512i choose(char mask, __m512i a, __m512i b) {
    return _mm512_ternarylogic_epi64(_mm512_set1_epi8(mask), a, b, 0xca);
}

static inline __m512i spread_path(uint16_t radius, const uint8_t * plane) {
    const uint64_t path = load_word(plane), past = turbo_past(radius);
    return choose(1, spread(turbo_bit0(path, past), 0), spread(turbo_bit1(path, past), 1));
}

#    define MOST_RAW 4

// Tables repeat up to 64 entries, so that bits above the index do not matter.
TURBO_INLINE vector decode(int raw, uint16_t d, const uint8_t * path, const uint8_t * planes, const int8_t * book) {
    __m512i table, high;
    if (raw == 4) {
        table = _mm512_loadu_si512(book);
        high  = choose(0x0c, spread_pairs(planes), _mm512_rol_epi64(spread_pairs(planes + 16), 2));
    } else if (raw == 3) {
        table = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) book));
        high  = choose(0x0c, spread_pairs(planes + 8), spread(load_word(planes), 4));
    } else if (raw == 2) {
        table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) book));
        high  = spread_pairs(planes);
    } else {
        table = _mm512_set1_epi64((int64_t) load_word((const uint8_t *) book));
        high  = spread(load_word(planes), 2);
    }
    return _mm512_permutexvar_epi8(choose(3, spread_path(d, path), high), table);
}

static inline void store(int8_t * to, vector v) {
    _mm512_storeu_si512(to, v);
}

// dpbusd wants one factor unsigned: levels + 128, whose surplus is taken off again.
static inline sums add_products(sums lanes, vector v, const block_q8_0 * y, float low, float high) {
    const __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) y[0].qs)),
                                         _mm256_loadu_si256((const __m256i *) y[1].qs), 1);
    const __m512i offset  = _mm512_set1_epi8((char) 0x80);
    const __m512i zero    = _mm512_setzero_si512();
    const __m512i raised  = _mm512_dpbusd_epi32(zero, _mm512_xor_si512(v, offset), q);
    const __m512i sum     = _mm512_sub_epi32(raised, _mm512_dpbusd_epi32(zero, offset, q));
    const __m512  scale   = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(low), _mm512_set1_ps(high));
    return _mm512_add_ps(lanes, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

static inline float total(sums lanes) {
    const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1));
    return total_of_8(_mm256_add_ps(_mm512_castps512_ps256(lanes), upper));
}

#elif defined(TURBO_AVX2)

typedef struct {
    __m256i half[2];
} vector;
typedef struct {
    __m256 half[2];
} sums;

static inline __m256i word_of(const uint8_t * plane) {
    return _mm256_set1_epi64x((int64_t) load_word(plane));
}

// Bits 0 and 1 of the indices, clear above. Groups 0 to 3 are in the lower half, 4 to 7 in the upper one.
static inline void spread_path(uint16_t radius, const uint8_t * plane, __m256i * half) {
    const uint64_t path = load_word(plane), past = turbo_past(radius);
    const __m256i  bit0 = _mm256_set1_epi64x((int64_t) turbo_bit0(path, past));
    const __m256i  bit1 = _mm256_set1_epi64x((int64_t) turbo_bit1(path, past));
    const __m256i  one = _mm256_set1_epi8(1), two = _mm256_set1_epi8(2);
    const __m256i  lower = _mm256_set_epi64x(3, 2, 1, 0), upper = _mm256_set_epi64x(7, 6, 5, 4);
    const __m256i  low1 = _mm256_srlv_epi64(bit1, lower);
    half[0] = _mm256_or_si256(_mm256_and_si256(_mm256_srlv_epi64(bit0, lower), one),
                              _mm256_and_si256(_mm256_add_epi8(low1, low1), two));
    half[1] = _mm256_or_si256(
        _mm256_and_si256(_mm256_srlv_epi64(bit0, upper), one),
        _mm256_and_si256(_mm256_srlv_epi64(bit1, _mm256_set_epi64x(6, 5, 4, 3)), two));
}

// The same with a pair as bits 2 and 3.
static inline void spread_pairs(uint16_t radius, const uint8_t * plane, const uint8_t * qs, __m256i * half) {
    const __m256i pairs = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) qs));
    const __m256i mask  = _mm256_set1_epi8(0x0c);
    const __m256i lower = _mm256_sllv_epi64(pairs, _mm256_set_epi64x(0, 0, 2, 2));
    const __m256i upper = _mm256_srlv_epi64(pairs, _mm256_set_epi64x(4, 4, 2, 2));
    spread_path(radius, plane, half);
    half[0] = _mm256_or_si256(half[0], _mm256_and_si256(lower, mask));
    half[1] = _mm256_or_si256(half[1], _mm256_and_si256(upper, mask));
}

#    define MOST_RAW 4

TURBO_INLINE vector decode(int raw, uint16_t d, const uint8_t * path, const uint8_t * planes, const int8_t * book) {
    vector v;
    if (raw == 4) {
        const __m256i more     = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) (planes + 16)));
        const __m256i lower[2] = { _mm256_sllv_epi64(more, _mm256_set_epi64x(5, 5, 7, 7)),
                                   _mm256_sllv_epi64(more, _mm256_set_epi64x(1, 1, 3, 3)) };
        const __m256i upper[2] = { _mm256_sllv_epi64(more, _mm256_set_epi64x(4, 4, 6, 6)),
                                   _mm256_sllv_epi64(more, _mm256_set_epi64x(0, 0, 2, 2)) };
        __m256i table[4];
        for (int i = 0; i < 4; ++i) {
            table[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) book + i));
        }
        spread_pairs(d, path, planes, v.half);
        for (int i = 0; i < 2; ++i) {
            const __m256i at    = v.half[i];
            const __m256i below = _mm256_blendv_epi8(_mm256_shuffle_epi8(table[0], at), _mm256_shuffle_epi8(table[1], at),
                                                     lower[i]);
            const __m256i above = _mm256_blendv_epi8(_mm256_shuffle_epi8(table[2], at), _mm256_shuffle_epi8(table[3], at),
                                                     lower[i]);
            v.half[i]           = _mm256_blendv_epi8(below, above, upper[i]);
        }
    } else if (raw == 3) {
        const __m256i below = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) book));
        const __m256i above = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) book + 1));
        const __m256i high  = word_of(planes);
        // to bit 7, by which a blend selects
        const __m256i sign[2] = { _mm256_sllv_epi64(high, _mm256_set_epi64x(4, 5, 6, 7)),
                                  _mm256_sllv_epi64(high, _mm256_set_epi64x(0, 1, 2, 3)) };
        spread_pairs(d, path, planes + 8, v.half);
        for (int i = 0; i < 2; ++i) {
            v.half[i] = _mm256_blendv_epi8(_mm256_shuffle_epi8(below, v.half[i]), _mm256_shuffle_epi8(above, v.half[i]),
                                           sign[i]);
        }
    } else if (raw == 2) {
        const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) book));
        spread_pairs(d, path, planes, v.half);
        v.half[0] = _mm256_shuffle_epi8(table, v.half[0]);
        v.half[1] = _mm256_shuffle_epi8(table, v.half[1]);
    } else {
        // bit 2 of the index goes to bit 3, as shifts of both halves reach it: the table holds every four levels twice
        const __m128i levels = _mm_loadl_epi64((const __m128i *) book);
        const __m256i table  = _mm256_broadcastsi128_si256(_mm_unpacklo_epi32(levels, levels));
        const __m256i high   = word_of(planes);
        const __m256i mask   = _mm256_set1_epi8(0x08);
        const __m256i lower  = _mm256_sllv_epi64(high, _mm256_set_epi64x(0, 1, 2, 3));
        const __m256i upper  = _mm256_srlv_epi64(high, _mm256_set_epi64x(4, 3, 2, 1));
        spread_path(d, path, v.half);
        v.half[0] = _mm256_shuffle_epi8(table, _mm256_or_si256(v.half[0], _mm256_and_si256(lower, mask)));
        v.half[1] = _mm256_shuffle_epi8(table, _mm256_or_si256(v.half[1], _mm256_and_si256(upper, mask)));
    }
    return v;
}

static inline void store(int8_t * to, vector v) {
    _mm256_storeu_si256((__m256i *) to, v.half[0]);
    _mm256_storeu_si256((__m256i *) (to + 32), v.half[1]);
}

// maddubs wants one factor unsigned: the size of y, whose sign the level takes. Levels stay off -128, so no sum of two
// products saturates.
static inline sums add_products(sums lanes, vector v, const block_q8_0 * y, float low, float high) {
    const float scale[2] = { low, high };
    for (int i = 0; i < 2; ++i) {
        const __m256i q       = _mm256_loadu_si256((const __m256i *) y[i].qs);
        const __m256i pairs   = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(v.half[i], q));
        const __m256i sum     = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        const __m256  product = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(scale[i]));
        lanes.half[i]         = _mm256_add_ps(lanes.half[i], product);
    }
    return lanes;
}

static inline float total(sums lanes) {
    return total_of_8(_mm256_add_ps(lanes.half[0], lanes.half[1]));
}

#elif defined(TURBO_NEON)

typedef int8x16x4_t   vector;
typedef float32x4x4_t sums;

// Bits of the groups 2q (lower half of the register) and 2q + 1: bit g of every byte moved to a given bit, clear of
// other bits only where the mask says.
static inline uint8x16_t spread(uint64_t plane, int q, int bit) {
    const int8x16_t shift = vcombine_s8(vdup_n_s8((int8_t) (bit - 2 * q)), vdup_n_s8((int8_t) (bit - 2 * q - 1)));
    return vshlq_u8(vreinterpretq_u8_u64(vdupq_n_u64(plane)), shift);
}

// Bits 0 and 1 of the index of sixteen values.
static inline uint8x16_t spread_path(uint64_t bit0, uint64_t bit1, int q) {
    return vbslq_u8(vdupq_n_u8(1), spread(bit0, q, 0), spread(bit1, q, 1));
}

static inline uint8x16_t spread_pairs(const uint8_t * qs, int q) {  // to bits 2 and 3
    return vshlq_u8(vld1q_u8(qs), vdupq_n_s8((int8_t) (2 - 2 * q)));
}

#    define MOST_RAW 4

TURBO_INLINE vector decode(int raw, uint16_t d, const uint8_t * path, const uint8_t * planes, const int8_t * book) {
    const uint64_t word = load_word(path), past = turbo_past(d);
    const uint64_t bit0 = turbo_bit0(word, past), bit1 = turbo_bit1(word, past);
    vector         v;
    for (int q = 0; q < 4; ++q) {
        const uint8x16_t low = spread_path(bit0, bit1, q);
        if (raw == 4) {
            const int8x16x4_t table = { { vld1q_s8(book), vld1q_s8(book + 16), vld1q_s8(book + 32), vld1q_s8(book + 48) } };
            const uint8x16_t  more  = vshlq_u8(vld1q_u8(planes + 16), vdupq_n_s8((int8_t) (4 - 2 * q)));
            const uint8x16_t  high  = vbslq_u8(vdupq_n_u8(0x0c), spread_pairs(planes, q), more);
            const uint8x16_t  all   = vbslq_u8(vdupq_n_u8(3), low, high);
            v.val[q]                = vqtbl4q_s8(table, vandq_u8(all, vdupq_n_u8(63)));
        } else if (raw == 3) {
            const int8x16x2_t table = { { vld1q_s8(book), vld1q_s8(book + 16) } };
            const uint8x16_t  plane = spread(load_word(planes), q, 4);
            const uint8x16_t  high  = vbslq_u8(vdupq_n_u8(0x0c), spread_pairs(planes + 8, q), plane);
            const uint8x16_t  all   = vbslq_u8(vdupq_n_u8(3), low, high);
            v.val[q]                = vqtbl2q_s8(table, vandq_u8(all, vdupq_n_u8(31)));
        } else if (raw == 2) {
            const uint8x16_t all = vbslq_u8(vdupq_n_u8(3), low, spread_pairs(planes, q));
            v.val[q]             = vqtbl1q_s8(vld1q_s8(book), vandq_u8(all, vdupq_n_u8(15)));
        } else {
            const int8x16_t  table = vcombine_s8(vld1_s8(book), vdup_n_s8(0));
            const uint8x16_t all   = vbslq_u8(vdupq_n_u8(3), low, spread(load_word(planes), q, 2));
            v.val[q]               = vqtbl1q_s8(table, vandq_u8(all, vdupq_n_u8(7)));
        }
    }
    return v;
}

static inline void store(int8_t * to, vector v) {
    for (int q = 0; q < 4; ++q) {
        vst1q_s8(to + 16 * q, v.val[q]);
    }
}

// Sums of four neighbours' products.
static inline int32x4_t products(int8x16_t a, int8x16_t b) {
#    if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(vdupq_n_s32(0), a, b);
#    else
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
#    endif
}

static inline sums add_products(sums lanes, vector v, const block_q8_0 * y, float low, float high) {
    for (int q = 0; q < 4; ++q) {
        const int32x4_t   sum     = products(v.val[q], vld1q_s8(y[q / 2].qs + 16 * (q % 2)));
        const float32x4_t product = vmulq_n_f32(vcvtq_f32_s32(sum), q < 2 ? low : high);
        lanes.val[q]              = vaddq_f32(lanes.val[q], product);
    }
    return lanes;
}

static inline float total(sums lanes) {
    const float32x4_t four = vaddq_f32(vaddq_f32(lanes.val[0], lanes.val[2]), vaddq_f32(lanes.val[1], lanes.val[3]));
    const float32x2_t two  = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

#else

typedef struct {
    int8_t value[QK_TURBO];
} vector;
typedef struct {
    float lane[LANES];
} sums;

#    define MOST_RAW 6  // eight bits of an index

TURBO_INLINE vector decode(int raw, uint16_t d, const uint8_t * path, const uint8_t * planes, const int8_t * book) {
    const uint64_t word = turbo_load_plane(path), past = turbo_past(d);
    const uint64_t bit0 = turbo_bit0(word, past), bit1 = turbo_bit1(word, past);
    vector         v;
    for (int j = 0; j < QK_TURBO; ++j) {
        v.value[j] = book[turbo_index(bit0, bit1, planes, raw, j)];
    }
    return v;
}

static inline void store(int8_t * to, vector v) {
    memcpy(to, v.value, sizeof(v.value));
}

static inline sums add_products(sums lanes, vector v, const block_q8_0 * y, float low, float high) {
    for (int l = 0; l < LANES; ++l) {
        const int8_t * a   = v.value + 4 * l;
        const int8_t * b   = y[l / 8].qs + 4 * (l % 8);
        const int32_t  sum = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
        lanes.lane[l] += (float) sum * (l < LANES / 2 ? low : high);
    }
    return lanes;
}

static inline float total(sums lanes) {
    for (int n = LANES / 2; n > 0; n /= 2) {
        for (int l = 0; l < n; ++l) {
            lanes.lane[l] += lanes.lane[l + n];
        }
    }
    return lanes.lane[0];
}

#endif

#define DECODE(id, RAW, b) decode(RAW, (b)->d, (b)->path, (b)->raw, ggml_##id##_levels[turbo_book((b)->d)])

#define FUNCTIONS(ID, id, RAW)                                                                          \
    _Static_assert((RAW) <= MOST_RAW, "decode() takes no more raw bits for " #id);                      \
    void ggml_cpu_##id##_levels_row(const void * x, int8_t * levels, float * scale, int64_t k) {        \
        for (const block_##id * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {         \
            store(levels, DECODE(id, RAW, b));                                                          \
            *scale++ = scale_of(b->d);                                                                  \
        }                                                                                               \
    }                                                                                                   \
    void ggml_cpu_##id##_dequantize_row(const void * x, float * y, int64_t k) {                         \
        int8_t level[QK_TURBO];                                                                         \
        for (const block_##id * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {              \
            const float scale = scale_of(b->d);                                                         \
            store(level, DECODE(id, RAW, b));                                                           \
            for (int j = 0; j < QK_TURBO; ++j) {                                                        \
                y[j] = scale * (float) level[j];                                                        \
            }                                                                                           \
        }                                                                                               \
    }                                                                                                   \
    void ggml_vec_dot_##id##_q8_0(                                                                      \
        int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc) { \
        assert(nrc == 1 && n % QK_TURBO == 0);                                                          \
        (void) bs, (void) bx, (void) by, (void) nrc;                                                    \
        const block_##id * x     = vx;                                                                  \
        const block_q8_0 * y     = vy;                                                                  \
        sums               lanes;                                                                       \
        memset(&lanes, 0, sizeof(lanes));                                                               \
        for (int i = 0; i < n / QK_TURBO; ++i, y += 2) {                                                \
            const float scale = scale_of(x[i].d);                                                       \
            const float low = scale * to_float(y[0].d), high = scale * to_float(y[1].d);                \
            lanes = add_products(lanes, DECODE(id, RAW, &x[i]), y, low, high);                          \
        }                                                                                               \
        *s = total(lanes);                                                                              \
    }
TURBO_TYPES(FUNCTIONS)
