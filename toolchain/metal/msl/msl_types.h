// Scalar types of the Metal Shading Language and the traits that the other headers need.
#pragma once

typedef __INT8_TYPE__ int8_t;
typedef __INT16_TYPE__ int16_t;
typedef __INT32_TYPE__ int32_t;
typedef long int64_t; // MSL's long, 64 bits wide on Linux and macOS alike
typedef __UINT8_TYPE__ uint8_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __UINT32_TYPE__ uint32_t;
typedef unsigned long uint64_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t;
typedef __PTRDIFF_TYPE__ ptrdiff_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef _Float16 half;
typedef __bf16 bfloat;

static_assert(sizeof(long) == 8, "MSL's long has 64 bits");

#define INFINITY (__builtin_inff())
#define NAN (__builtin_nanf(""))
#define MAXFLOAT (__FLT_MAX__)
#define HUGE_VALF (__builtin_inff())
#define FLT_MAX (__FLT_MAX__)
#define FLT_MIN (__FLT_MIN__)
#define FLT_EPSILON (__FLT_EPSILON__)
#define MAXHALF ((half)65504.0f)
#define HALF_MAX ((half)65504.0f)
#define HALF_MIN ((half)6.103515625e-05f)
#define HALF_EPSILON ((half)0.0009765625f)
#define CHAR_BIT 8
#define CHAR_MAX 127
#define CHAR_MIN (-128)
#define UCHAR_MAX 255
#define SHRT_MAX 32767
#define SHRT_MIN (-32768)
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295u
#define LONG_MAX 9223372036854775807l
#define ULONG_MAX 18446744073709551615ul

#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_E_F 2.71828182845904523536f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.43429448190325182765f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f
#define M_PI_H ((half)3.14159265358979323846f)

namespace metal {

template <typename T, T value_> struct integral_constant {
    static constexpr T value = value_;
    constexpr operator T() const { return value; }
};
using true_type = integral_constant<bool, true>;
using false_type = integral_constant<bool, false>;
template <typename A, typename B> struct is_same : false_type {};
template <typename A> struct is_same<A, A> : true_type {};
template <typename A, typename B> constexpr bool is_same_v = is_same<A, B>::value;
template <bool c, typename A, typename B> struct conditional { using type = A; };
template <typename A, typename B> struct conditional<false, A, B> { using type = B; };
template <bool c, typename A, typename B> using conditional_t = typename conditional<c, A, B>::type;
template <bool c, typename T = void> struct enable_if {};
template <typename T> struct enable_if<true, T> { using type = T; };
template <bool c, typename T = void> using enable_if_t = typename enable_if<c, T>::type;
template <typename T> struct remove_const { using type = T; };
template <typename T> struct remove_const<const T> { using type = T; };
template <typename T> struct remove_volatile { using type = T; };
template <typename T> struct remove_volatile<volatile T> { using type = T; };
template <typename T> struct remove_cv { using type = typename remove_volatile<typename remove_const<T>::type>::type; };
template <typename T> using remove_cv_t = typename remove_cv<T>::type;
template <typename T> struct remove_reference { using type = T; };
template <typename T> struct remove_reference<T &> { using type = T; };
template <typename T> struct remove_reference<T &&> { using type = T; };
template <typename T> using remove_reference_t = typename remove_reference<T>::type;

// What the executor needs to know of a scalar: its code in runtime/interface.h.
template <typename T> struct msl_code;
#define MSL_CODE(T, n) template <> struct msl_code<T> : integral_constant<int, n> {};
MSL_CODE(bool, 0) MSL_CODE(char, 1) MSL_CODE(signed char, 1) MSL_CODE(uchar, 2) MSL_CODE(short, 3) MSL_CODE(ushort, 4)
MSL_CODE(int, 5) MSL_CODE(uint, 6) MSL_CODE(long, 7) MSL_CODE(ulong, 8) MSL_CODE(half, 9) MSL_CODE(float, 10)
MSL_CODE(bfloat, 11)
#undef MSL_CODE

template <typename T> struct is_floating_point : integral_constant<bool, (msl_code<T>::value >= 9)> {};
template <typename T> struct is_integral : integral_constant<bool, (msl_code<T>::value < 9)> {};
template <typename T> constexpr bool is_floating_point_v = is_floating_point<T>::value;
template <typename T> constexpr bool is_integral_v = is_integral<T>::value;

template <typename T> struct msl_same { using type = T; };
template <typename T> using msl_same_t = typename msl_same<T>::type; // a parameter that takes no part in deduction

template <typename T> struct numeric_limits;
#define MSL_LIMITS(T, low, high, tiny)                                                                                 \
    template <> struct numeric_limits<T> {                                                                             \
        static constexpr T lowest() { return (T)(low); }                                                               \
        static constexpr T max() { return (T)(high); }                                                                 \
        static constexpr T min() { return (T)(tiny); }                                                                 \
        static constexpr T infinity() { return (T)__builtin_inff(); }                                                  \
        static constexpr T quiet_NaN() { return (T)__builtin_nanf(""); }                                               \
    };
#define MSL_INT_LIMITS(T, low, high)                                                                                   \
    template <> struct numeric_limits<T> {                                                                             \
        static constexpr T lowest() { return low; }                                                                    \
        static constexpr T max() { return high; }                                                                      \
        static constexpr T min() { return low; }                                                                       \
    };
MSL_LIMITS(float, -__FLT_MAX__, __FLT_MAX__, __FLT_MIN__)
MSL_LIMITS(half, -65504.0f, 65504.0f, 6.103515625e-05f)
MSL_LIMITS(bfloat, -3.3895313892515355e38f, 3.3895313892515355e38f, __FLT_MIN__)
MSL_INT_LIMITS(char, CHAR_MIN, CHAR_MAX)
MSL_INT_LIMITS(signed char, CHAR_MIN, CHAR_MAX)
MSL_INT_LIMITS(uchar, 0, UCHAR_MAX)
MSL_INT_LIMITS(short, SHRT_MIN, SHRT_MAX)
MSL_INT_LIMITS(ushort, 0, USHRT_MAX)
MSL_INT_LIMITS(int, INT_MIN, INT_MAX)
MSL_INT_LIMITS(uint, 0, UINT_MAX)
MSL_INT_LIMITS(long, (-LONG_MAX - 1), LONG_MAX)
MSL_INT_LIMITS(ulong, 0, ULONG_MAX)
#undef MSL_LIMITS
#undef MSL_INT_LIMITS

} // namespace metal
