// Common, math, integer, geometric and relational functions: float through libm, half through float and rounded once.
#pragma once
#include "msl_vector.h"

namespace metal {

#define MSL_EACH_1(name)                                                                                               \
    template <typename T, int N> constexpr vec<T, N> name(const vec<T, N> &a) {                                               \
        vec<T, N> out(T(0));                                                                                           \
        for (int i = 0; i < N; i++) out.v[i] = name((T)a.v[i]);                                                        \
        return out;                                                                                                    \
    }
#define MSL_EACH_2(name)                                                                                               \
    template <typename T, int N> constexpr vec<T, N> name(const vec<T, N> &a, const vec<T, N> &b) {                                  \
        vec<T, N> out(T(0));                                                                                           \
        for (int i = 0; i < N; i++) out.v[i] = name((T)a.v[i], (T)b.v[i]);                                             \
        return out;                                                                                                    \
    }                                                                                                                  \
    template <typename T, int N> constexpr vec<T, N> name(const vec<T, N> &a, msl_same_t<T> b) { return name(a, vec<T, N>(b)); } \
    template <typename T, int N> constexpr vec<T, N> name(msl_same_t<T> a, const vec<T, N> &b) { return name(vec<T, N>(a), b); }
#define MSL_EACH_3(name)                                                                                               \
    template <typename T, int N>                                                                                       \
    constexpr vec<T, N> name(const vec<T, N> &a, const msl_same_t<vec<T, N>> &b, const msl_same_t<vec<T, N>> &c) {                          \
        vec<T, N> out(T(0));                                                                                           \
        for (int i = 0; i < N; i++) out.v[i] = name((T)a.v[i], (T)b.v[i], (T)c.v[i]);                                  \
        return out;                                                                                                    \
    }

#define MSL_FLOAT_1(name, expression)                                                                                  \
    inline float name(float x) { return expression; }                                                                  \
    inline half name(half x_) {                                                                                        \
        float x = x_;                                                                                                  \
        return (half)(expression);                                                                                     \
    }                                                                                                                  \
    MSL_EACH_1(name)
#define MSL_FLOAT_2(name, expression)                                                                                  \
    inline float name(float x, float y) { return expression; }                                                         \
    inline half name(half x_, half y_) {                                                                               \
        float x = x_, y = y_;                                                                                          \
        return (half)(expression);                                                                                     \
    }                                                                                                                  \
    MSL_EACH_2(name)

#define MSL_TRANSCENDENTALS                                                                                            \
    MSL_FLOAT_1(exp, __builtin_expf(x))                                                                                \
    MSL_FLOAT_1(exp2, __builtin_exp2f(x))                                                                              \
    MSL_FLOAT_1(exp10, __builtin_powf(10.0f, x))                                                                       \
    MSL_FLOAT_1(log, __builtin_logf(x))                                                                                \
    MSL_FLOAT_1(log2, __builtin_log2f(x))                                                                              \
    MSL_FLOAT_1(log10, __builtin_log10f(x))                                                                            \
    MSL_FLOAT_1(sin, __builtin_sinf(x))                                                                                \
    MSL_FLOAT_1(cos, __builtin_cosf(x))                                                                                \
    MSL_FLOAT_1(tan, __builtin_tanf(x))                                                                                \
    MSL_FLOAT_1(asin, __builtin_asinf(x))                                                                              \
    MSL_FLOAT_1(acos, __builtin_acosf(x))                                                                              \
    MSL_FLOAT_1(atan, __builtin_atanf(x))                                                                              \
    MSL_FLOAT_1(sinh, __builtin_sinhf(x))                                                                              \
    MSL_FLOAT_1(cosh, __builtin_coshf(x))                                                                              \
    MSL_FLOAT_1(tanh, __builtin_tanhf(x))                                                                              \
    MSL_FLOAT_1(asinh, __builtin_asinhf(x))                                                                            \
    MSL_FLOAT_1(acosh, __builtin_acoshf(x))                                                                            \
    MSL_FLOAT_1(atanh, __builtin_atanhf(x))                                                                            \
    MSL_FLOAT_1(sqrt, __builtin_sqrtf(x))                                                                              \
    MSL_FLOAT_1(rsqrt, 1.0f / __builtin_sqrtf(x))                                                                      \
    MSL_FLOAT_2(pow, __builtin_powf(x, y))                                                                             \
    MSL_FLOAT_2(powr, __builtin_powf(x, y))                                                                            \
    MSL_FLOAT_2(atan2, __builtin_atan2f(x, y))                                                                         \
    MSL_FLOAT_2(divide, x / y)

MSL_TRANSCENDENTALS
namespace precise {
MSL_TRANSCENDENTALS
}
namespace fast {
MSL_TRANSCENDENTALS
}
#undef MSL_TRANSCENDENTALS

MSL_FLOAT_1(floor, __builtin_floorf(x))
MSL_FLOAT_1(ceil, __builtin_ceilf(x))
MSL_FLOAT_1(round, __builtin_roundf(x))
MSL_FLOAT_1(rint, __builtin_rintf(x))
MSL_FLOAT_1(trunc, __builtin_truncf(x))
MSL_FLOAT_1(fabs, __builtin_fabsf(x))
MSL_FLOAT_1(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f))
MSL_FLOAT_1(saturate, __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f))
MSL_FLOAT_1(sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? x : 0.0f)
MSL_FLOAT_1(degrees, x * 57.295779513082321f)
MSL_FLOAT_1(radians, x * 0.017453292519943295f)
MSL_FLOAT_2(fmod, __builtin_fmodf(x, y))
MSL_FLOAT_2(fmin, __builtin_fminf(x, y))
MSL_FLOAT_2(fmax, __builtin_fmaxf(x, y))
MSL_FLOAT_2(fdim, __builtin_fdimf(x, y))
MSL_FLOAT_2(copysign, __builtin_copysignf(x, y))
MSL_FLOAT_2(step, y < x ? 0.0f : 1.0f)

// One rounding in all: a float holds a product of halves exactly, a double holds it with any half added.
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline half fma(half a, half b, half c) { return (half)((double)a * (double)b + (double)c); }
MSL_EACH_3(fma)
inline float mix(float a, float b, float t) { return a + (b - a) * t; }
inline half mix(half a, half b, half t) { return a + (b - a) * t; }
MSL_EACH_3(mix)
inline float smoothstep(float a, float b, float x) {
    float t = saturate((x - a) / (b - a));
    return t * t * (3.0f - 2.0f * t);
}
MSL_EACH_3(smoothstep)
inline float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
inline half ldexp(half x, int e) { return (half)__builtin_ldexpf(x, e); }
inline float frexp(float x, int &e) { return __builtin_frexpf(x, &e); }
inline float modf(float x, float &whole) {
    whole = __builtin_truncf(x);
    return x - whole;
}

#define MSL_ORDERED(T)                                                                                                 \
    constexpr T min(T a, T b) { return b < a ? b : a; }                                                                \
    constexpr T max(T a, T b) { return a < b ? b : a; }                                                                \
    constexpr T clamp(T x, T low, T high) { return min(max(x, low), high); }                                           \
    constexpr T min3(T a, T b, T c) { return min(a, min(b, c)); }                                                      \
    constexpr T max3(T a, T b, T c) { return max(a, max(b, c)); }                                                      \
    constexpr T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); }
MSL_ORDERED(char) MSL_ORDERED(signed char) MSL_ORDERED(uchar) MSL_ORDERED(short) MSL_ORDERED(ushort) MSL_ORDERED(int)
MSL_ORDERED(uint) MSL_ORDERED(long) MSL_ORDERED(ulong) MSL_ORDERED(bfloat)
#undef MSL_ORDERED
// A NaN gives way to the other operand.
#define MSL_ORDERED_FLOAT(T)                                                                                           \
    constexpr T min(T a, T b) { return b < a || a != a ? b : a; }                                                      \
    constexpr T max(T a, T b) { return a < b || a != a ? b : a; }                                                      \
    constexpr T clamp(T x, T low, T high) { return min(max(x, low), high); }                                           \
    constexpr T min3(T a, T b, T c) { return min(a, min(b, c)); }                                                      \
    constexpr T max3(T a, T b, T c) { return max(a, max(b, c)); }                                                      \
    constexpr T median3(T a, T b, T c) { return max(min(a, b), min(max(a, b), c)); }
MSL_ORDERED_FLOAT(half) MSL_ORDERED_FLOAT(float)
#undef MSL_ORDERED_FLOAT
MSL_EACH_2(min) MSL_EACH_2(max)
template <typename T, int N> constexpr vec<T, N> clamp(const vec<T, N> &x, const msl_same_t<vec<T, N>> &low, const msl_same_t<vec<T, N>> &high) {
    return min(max(x, low), high);
}

#define MSL_SIGNED(T, U)                                                                                               \
    constexpr T abs(T x) { return (T)(x < 0 ? -x : x); }                                                               \
    constexpr U absdiff(T a, T b) { return (U)(a < b ? (U)b - (U)a : (U)a - (U)b); }
MSL_SIGNED(char, uchar) MSL_SIGNED(signed char, uchar) MSL_SIGNED(short, ushort) MSL_SIGNED(int, uint)
MSL_SIGNED(long, ulong)
#undef MSL_SIGNED
constexpr uchar abs(uchar x) { return x; }
constexpr ushort abs(ushort x) { return x; }
constexpr uint abs(uint x) { return x; }
constexpr ulong abs(ulong x) { return x; }
inline float abs(float x) { return __builtin_fabsf(x); }
inline half abs(half x) { return (half)__builtin_fabsf(x); }
MSL_EACH_1(abs)

#define MSL_INTEGER(T, U, bits)                                                                                        \
    constexpr T popcount(T x) { return (T)__builtin_popcountll((unsigned long long)(U)x); }                            \
    constexpr T clz(T x) { return (T)(x == 0 ? bits : __builtin_clzll((unsigned long long)(U)x) - (64 - bits)); }      \
    constexpr T ctz(T x) { return (T)(x == 0 ? bits : __builtin_ctzll((unsigned long long)(U)x)); }                    \
    constexpr T rotate(T x, T by) {                                                                                    \
        U n = (U)by & (bits - 1);                                                                                      \
        return (T)(U)((U)((U)x << n) | (U)((U)x >> ((bits - n) & (bits - 1))));                                        \
    }                                                                                                                  \
    constexpr T reverse_bits(T x) {                                                                                    \
        U out = 0;                                                                                                     \
        for (int i = 0; i < bits; i++) out = (U)(out | (U)((((U)x >> i) & 1) << (bits - 1 - i)));                      \
        return (T)out;                                                                                                 \
    }                                                                                                                  \
    constexpr T extract_bits(T x, uint offset, uint count) {                                                           \
        return count == 0 ? (T)0 : (T)((T)((U)x << (bits - offset - count)) >> (bits - count));                        \
    }                                                                                                                  \
    constexpr T insert_bits(T base, T insert, uint offset, uint count) {                                               \
        U mask = count == 0 ? (U)0 : (U)((U)((U)~(U)0 >> (bits - count)) << offset);                                   \
        return (T)(((U)base & (U)~mask) | ((U)((U)insert << offset) & mask));                                          \
    }
MSL_INTEGER(char, uchar, 8) MSL_INTEGER(signed char, uchar, 8) MSL_INTEGER(uchar, uchar, 8)
MSL_INTEGER(short, ushort, 16) MSL_INTEGER(ushort, ushort, 16) MSL_INTEGER(int, uint, 32)
MSL_INTEGER(uint, uint, 32) MSL_INTEGER(long, ulong, 64) MSL_INTEGER(ulong, ulong, 64)
#undef MSL_INTEGER
MSL_EACH_1(popcount) MSL_EACH_1(clz) MSL_EACH_1(ctz) MSL_EACH_1(reverse_bits) MSL_EACH_2(rotate)
constexpr int mulhi(int a, int b) { return (int)(((long)a * b) >> 32); }
constexpr uint mulhi(uint a, uint b) { return (uint)(((ulong)a * b) >> 32); }
constexpr int mul24(int a, int b) { return a * b; }
constexpr uint mul24(uint a, uint b) { return a * b; }
constexpr int mad24(int a, int b, int c) { return a * b + c; }
constexpr uint mad24(uint a, uint b, uint c) { return a * b + c; }

#define MSL_CLASSIFY(name, expression)                                                                                 \
    inline bool name(float x) { return expression; }                                                                   \
    inline bool name(half x_) {                                                                                        \
        float x = x_;                                                                                                  \
        return expression;                                                                                             \
    }                                                                                                                  \
    template <typename T, int N> vec<bool, N> name(const vec<T, N> &a) {                                                      \
        vec<bool, N> out(false);                                                                                       \
        for (int i = 0; i < N; i++) out.v[i] = name((T)a.v[i]);                                                        \
        return out;                                                                                                    \
    }
MSL_CLASSIFY(isnan, __builtin_isnan(x))
MSL_CLASSIFY(isinf, __builtin_isinf(x))
MSL_CLASSIFY(isfinite, __builtin_isfinite(x))
MSL_CLASSIFY(signbit, __builtin_signbit(x) != 0)
#undef MSL_CLASSIFY

inline bool any(bool x) { return x; }
inline bool all(bool x) { return x; }
template <int N> bool any(const vec<bool, N> &a) {
    bool out = false;
    for (int i = 0; i < N; i++) out = out || a.v[i];
    return out;
}
template <int N> bool all(const vec<bool, N> &a) {
    bool out = true;
    for (int i = 0; i < N; i++) out = out && a.v[i];
    return out;
}
#define MSL_SELECT(T)                                                                                                  \
    constexpr T select(T a, T b, bool c) { return c ? b : a; }
MSL_SELECT(bool) MSL_SELECT(char) MSL_SELECT(uchar) MSL_SELECT(short) MSL_SELECT(ushort) MSL_SELECT(int)
MSL_SELECT(uint) MSL_SELECT(long) MSL_SELECT(ulong) MSL_SELECT(half) MSL_SELECT(float) MSL_SELECT(bfloat)
#undef MSL_SELECT
template <typename T, int N> constexpr vec<T, N> select(vec<T, N> a, const msl_same_t<vec<T, N>> &b, vec<bool, N> c) {
    for (int i = 0; i < N; i++) a.v[i] = c.v[i] ? b.v[i] : a.v[i];
    return a;
}

// In the order of the components, as x*x' + y*y' + ...
template <typename T, int N> constexpr T dot(const vec<T, N> &a, const msl_same_t<vec<T, N>> &b) {
    T s = (T)(a.v[0] * b.v[0]);
    for (int i = 1; i < N; i++) s = (T)(s + (T)(a.v[i] * b.v[i]));
    return s;
}
template <typename T, int N> T length_squared(const vec<T, N> &a) { return dot(a, a); }
template <typename T, int N> T length(const vec<T, N> &a) { return sqrt(dot(a, a)); }
template <typename T, int N> T distance(const vec<T, N> &a, const msl_same_t<vec<T, N>> &b) { return length(a - b); }
template <typename T, int N> T distance_squared(const vec<T, N> &a, const msl_same_t<vec<T, N>> &b) { return dot(a - b, a - b); }
template <typename T, int N> vec<T, N> normalize(const vec<T, N> &a) { return a * vec<T, N>(rsqrt(dot(a, a))); }
template <typename T> vec<T, 3> cross(vec<T, 3> a, msl_same_t<vec<T, 3>> b) {
    return vec<T, 3>(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}

#undef MSL_EACH_1
#undef MSL_EACH_2
#undef MSL_EACH_3
#undef MSL_FLOAT_1
#undef MSL_FLOAT_2

} // namespace metal
