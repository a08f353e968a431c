// The Metal Shading Language as far as our kernels use it, on clang's own vectors and address spaces: only types, to see
// what Apple's compiler would refuse. The harness's headers run kernels, and take more than it does: their vectors are
// classes, and all memory is one.
//
// What is no C++ is rewritten first (test_strict.py): `float2(a, b)` becomes `make_float2(a, b)`.
#pragma once

typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;

#define INFINITY __builtin_inff()
#define FLT_MAX __FLT_MAX__

#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread
#define kernel

#define VECTORS(T)                                           \
    typedef T T##2 __attribute__((ext_vector_type(2)));      \
    typedef T T##3 __attribute__((ext_vector_type(3)));      \
    typedef T T##4 __attribute__((ext_vector_type(4)));
VECTORS(char) VECTORS(uchar) VECTORS(short) VECTORS(ushort) VECTORS(int) VECTORS(uint) VECTORS(long) VECTORS(ulong)
VECTORS(half) VECTORS(float)
typedef int2 bool2; // what clang makes of a comparison
typedef ushort packed_ushort2 __attribute__((ext_vector_type(2), aligned(2)));
typedef char packed_char4 __attribute__((ext_vector_type(4), aligned(1)));

// Of one scalar, of as many, and of a vector of the same size
#define CONVERT(T, N, F) \
    static inline T##N make_##T##N(F##N a) { return __builtin_convertvector(a, T##N); }
#define MAKE(T)                                                                                                  \
    static inline T##2 make_##T##2(T a) { return T##2 { a, a }; }                                                \
    static inline T##2 make_##T##2(T a, T b) { return T##2 { a, b }; }                                           \
    static inline T##4 make_##T##4(T a) { return T##4 { a, a, a, a }; }                                          \
    static inline T##4 make_##T##4(T a, T b, T c, T d) { return T##4 { a, b, c, d }; }                           \
    static inline T##4 make_##T##4(T##2 a, T##2 b) { return T##4 { a.x, a.y, b.x, b.y }; }                       \
    CONVERT(T, 2, char) CONVERT(T, 2, uchar) CONVERT(T, 2, short) CONVERT(T, 2, ushort) CONVERT(T, 2, int)       \
    CONVERT(T, 2, uint) CONVERT(T, 2, half) CONVERT(T, 2, float) CONVERT(T, 4, char) CONVERT(T, 4, uchar)        \
    CONVERT(T, 4, short) CONVERT(T, 4, ushort) CONVERT(T, 4, int) CONVERT(T, 4, uint) CONVERT(T, 4, half)        \
    CONVERT(T, 4, float)
MAKE(char) MAKE(uchar) MAKE(short) MAKE(ushort) MAKE(int) MAKE(uint) MAKE(half) MAKE(float)

template <typename A, typename B> A as_type(B b) {
    static_assert(sizeof(A) == sizeof(B), "as_type is between types of one size");
    return __builtin_bit_cast(A, b);
}

namespace metal {

// As in Apple's headers, a function for each type, so that a call with two different ones is ambiguous
#define OF_ONE(name, T) \
    T name(T);          \
    T##2 name(T##2);    \
    T##4 name(T##4);
#define OF_TWO(name, T)    \
    T name(T, T);          \
    T##2 name(T##2, T##2); \
    T##4 name(T##4, T##4);
#define OF_THREE(name, T)        \
    T name(T, T, T);             \
    T##2 name(T##2, T##2, T##2); \
    T##4 name(T##4, T##4, T##4);
#define INTEGERS(of, name)                                                                          \
    of(name, char) of(name, uchar) of(name, short) of(name, ushort) of(name, int) of(name, uint)    \
    of(name, long) of(name, ulong)
#define FLOATS(of, name) of(name, half) of(name, float)
INTEGERS(OF_TWO, min) INTEGERS(OF_TWO, max) INTEGERS(OF_TWO, rotate) INTEGERS(OF_ONE, reverse_bits)
FLOATS(OF_TWO, min) FLOATS(OF_TWO, max) FLOATS(OF_THREE, clamp) FLOATS(OF_ONE, exp) FLOATS(OF_ONE, fabs)
FLOATS(OF_TWO, pow)
namespace precise {
OF_ONE(tanh, float) OF_TWO(divide, float)
}
#define SELECT(T)               \
    T select(T, T, bool);       \
    T##2 select(T##2, T##2, int2); \
    T##4 select(T##4, T##4, int4);
SELECT(int) SELECT(uint) SELECT(float)

template <typename T> T simd_shuffle(T, ushort);
template <typename T> T simd_shuffle_xor(T, ushort);
template <typename T> T simd_max(T);
template <typename T> T simd_min(T);
template <typename T> T simd_sum(T);
bool simd_any(bool);
struct simd_vote {
    typedef ulong vote_t;
    explicit constexpr simd_vote(vote_t v = 0) : bits(v) {}
    explicit constexpr operator vote_t() const { return bits; }

  private:
    vote_t bits;
};
simd_vote simd_ballot(bool);

enum class mem_flags { mem_none, mem_device, mem_threadgroup };
void threadgroup_barrier(mem_flags);

template <typename T> struct simdgroup_matrix {
    typedef T elements __attribute__((ext_vector_type(2)));
    elements & thread_elements() { return own; }

  private:
    elements own;
};
typedef simdgroup_matrix<half>  simdgroup_half8x8;
typedef simdgroup_matrix<float> simdgroup_float8x8;
template <typename T>
void simdgroup_load(simdgroup_matrix<T> &, const threadgroup T *, ulong = 8, ulong2 = 0, bool = false);
template <typename T> void simdgroup_load(simdgroup_matrix<T> &, const device T *, ulong = 8, ulong2 = 0, bool = false);
template <typename D, typename A, typename B, typename C>
void simdgroup_multiply_accumulate(simdgroup_matrix<D> &, simdgroup_matrix<A>, simdgroup_matrix<B>, simdgroup_matrix<C>);

} // namespace metal
