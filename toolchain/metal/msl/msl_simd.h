// SIMD-group functions, barriers and SIMD-group matrices. Each is a meeting of lanes, which the executor carries out.
#pragma once
#include "msl_interface.h"
#include "msl_math.h"

namespace metal {

#define MSL_INLINE inline __attribute__((always_inline))

enum class mem_flags : uint { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return (mem_flags)((uint)a | (uint)b); }

MSL_INLINE void threadgroup_barrier(mem_flags flags) { msl_barrier(MSL_THREADGROUP_BARRIER, (int)flags, MSL_SITE); }
MSL_INLINE void simdgroup_barrier(mem_flags flags) { msl_barrier(MSL_SIMDGROUP_BARRIER, (int)flags, MSL_SITE); }

template <typename T> struct msl_shape {
    static constexpr int code = msl_code<T>::value, count = 1;
};
template <typename T, int N> struct msl_shape<vec<T, N>> {
    static constexpr int code = msl_code<T>::value, count = N;
};

#define MSL_SIMD(name, kind, op)                                                                                       \
    template <typename T> MSL_INLINE T name(T x) {                                                                     \
        msl_exchange(kind, op, msl_shape<T>::code, msl_shape<T>::count, &x, 0, MSL_SITE);                              \
        return x;                                                                                                      \
    }
MSL_SIMD(simd_sum, MSL_REDUCE, MSL_SUM)
MSL_SIMD(simd_product, MSL_REDUCE, MSL_PRODUCT)
MSL_SIMD(simd_min, MSL_REDUCE, MSL_MIN)
MSL_SIMD(simd_max, MSL_REDUCE, MSL_MAX)
MSL_SIMD(simd_and, MSL_REDUCE, MSL_AND)
MSL_SIMD(simd_or, MSL_REDUCE, MSL_OR)
MSL_SIMD(simd_xor, MSL_REDUCE, MSL_XOR)
MSL_SIMD(simd_prefix_inclusive_sum, MSL_PREFIX_INCLUSIVE, MSL_SUM)
MSL_SIMD(simd_prefix_exclusive_sum, MSL_PREFIX_EXCLUSIVE, MSL_SUM)
MSL_SIMD(simd_prefix_inclusive_product, MSL_PREFIX_INCLUSIVE, MSL_PRODUCT)
MSL_SIMD(simd_prefix_exclusive_product, MSL_PREFIX_EXCLUSIVE, MSL_PRODUCT)
MSL_SIMD(simd_broadcast_first, MSL_BROADCAST_FIRST, 0)
#undef MSL_SIMD

#define MSL_SHUFFLES(name, kind)                                                                                       \
    template <typename T> MSL_INLINE T name(T x, ushort lane) {                                                        \
        msl_exchange(kind, 0, msl_shape<T>::code, msl_shape<T>::count, &x, lane, MSL_SITE);                            \
        return x;                                                                                                      \
    }
MSL_SHUFFLES(simd_shuffle, MSL_SHUFFLE)
MSL_SHUFFLES(simd_broadcast, MSL_SHUFFLE)
MSL_SHUFFLES(simd_shuffle_xor, MSL_SHUFFLE_XOR)
MSL_SHUFFLES(simd_shuffle_down, MSL_SHUFFLE_DOWN)
MSL_SHUFFLES(simd_shuffle_up, MSL_SHUFFLE_UP)
MSL_SHUFFLES(simd_shuffle_rotate_down, MSL_ROTATE_DOWN)
MSL_SHUFFLES(simd_shuffle_rotate_up, MSL_ROTATE_UP)
#undef MSL_SHUFFLES

struct simd_vote {
    typedef ulong vote_t;
    explicit constexpr simd_vote(vote_t v = 0) : bits(v) {}
    explicit constexpr operator vote_t() const { return bits; }
    bool all() const { return bits == 0xffffffffu; }
    bool any() const { return bits != 0; }

  private:
    vote_t bits;
};
// Two words: who is here, and who said yes.
MSL_INLINE vec<uint, 2> msl_ballot(bool yes) {
    vec<uint, 2> x((uint)yes, 0u);
    msl_exchange(MSL_BALLOT, 0, msl_code<uint>::value, 2, &x, 0, MSL_SITE);
    return x;
}
MSL_INLINE simd_vote simd_ballot(bool yes) { return simd_vote(msl_ballot(yes).y); }
MSL_INLINE simd_vote simd_active_threads_mask() { return simd_vote(msl_ballot(true).x); }
MSL_INLINE bool simd_all(bool yes) {
    vec<uint, 2> x = msl_ballot(yes);
    return x.x == x.y;
}
MSL_INLINE bool simd_any(bool yes) { return msl_ballot(yes).y != 0; }

// Lane l holds two neighbours of one row; which, says runtime/collectives.h. Every lane of the SIMD-group takes part.
template <typename T, int C, int R = C> struct simdgroup_matrix {
    static_assert(C == 8 && R == 8, "SIMD-group matrices have 8 rows and 8 columns");
    vec<T, 2> own;
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T value) { *this = make(value, 1); }
    vec<T, 2> &thread_elements() { return own; }
    const vec<T, 2> &thread_elements() const { return own; }
    static MSL_INLINE simdgroup_matrix make(T value, int diagonal) {
        simdgroup_matrix out;
        out.own = vec<T, 2>(value);
        if (diagonal) msl_move(MSL_LOAD, sizeof(T), &out.own, nullptr, 0, 0, MSL_SITE);
        return out;
    }
};
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <typename T, int C, int R = C> MSL_INLINE simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T value) {
    return simdgroup_matrix<T, C, R>::make(value, 0);
}
template <typename T, int C, int R = C> MSL_INLINE simdgroup_matrix<T, C, R> make_diagonal_simdgroup_matrix(T value) {
    return simdgroup_matrix<T, C, R>::make(value, 1);
}
template <typename T>
MSL_INLINE void simdgroup_load(simdgroup_matrix<T, 8, 8> &d, const T *from, ulong stride = 8, vec<ulong, 2> origin = 0,
                               bool flip = false) {
    msl_move(MSL_LOAD, sizeof(T), &d.own, (void *)(from + origin.y * stride + origin.x), (long)stride, flip, MSL_SITE);
}
template <typename T>
MSL_INLINE void simdgroup_store(simdgroup_matrix<T, 8, 8> s, T *to, ulong stride = 8, vec<ulong, 2> origin = 0,
                                bool flip = false) {
    msl_move(MSL_STORE, sizeof(T), &s.own, to + origin.y * stride + origin.x, (long)stride, flip, MSL_SITE);
}
template <typename D, typename A, typename B, typename C>
MSL_INLINE void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                                              const simdgroup_matrix<B, 8, 8> &b, const simdgroup_matrix<C, 8, 8> &c) {
    msl_multiply(msl_code<D>::value | msl_code<A>::value << 8 | msl_code<B>::value << 16 | msl_code<C>::value << 24, &d.own,
                 &a.own, &b.own, &c.own, MSL_SITE);
}
template <typename D, typename A, typename B>
MSL_INLINE void simdgroup_multiply(simdgroup_matrix<D, 8, 8> &d, const simdgroup_matrix<A, 8, 8> &a,
                                   const simdgroup_matrix<B, 8, 8> &b) {
    msl_multiply(msl_code<D>::value | msl_code<A>::value << 8 | msl_code<B>::value << 16 | msl_code<D>::value << 24, &d.own,
                 &a.own, &b.own, nullptr, MSL_SITE);
}

} // namespace metal
