// Vectors and matrices. Components are a compiler vector, so that a vector is loaded, stored and computed with as one.
#pragma once
#include "msl_types.h"

namespace metal {

template <typename T, int N> struct msl_raw { typedef T type __attribute__((ext_vector_type(N))); };
// A compiler vector of bool is a bit field; MSL's takes a byte for each component.
template <int N> struct msl_raw<bool, N> { typedef uchar type __attribute__((ext_vector_type(N))); };

template <typename T, int N> struct msl_lanes;
template <typename T> struct msl_lanes<T, 2> {
    union {
        typename msl_raw<T, 2>::type v;
        struct { T x, y; };
        struct { T r, g; };
    };
};
template <typename T> struct msl_lanes<T, 3> {
    union {
        typename msl_raw<T, 3>::type v;
        struct { T x, y, z; };
        struct { T r, g, b; };
    };
};
template <typename T> struct msl_lanes<T, 4> {
    union {
        typename msl_raw<T, 4>::type v;
        struct { T x, y, z, w; };
        struct { T r, g, b, a; };
    };
};

template <typename T, int N> struct vec;
template <typename T, int N> struct packed_vec;
template <typename T> struct msl_count : integral_constant<int, 1> {};
template <typename T, int N> struct msl_count<vec<T, N>> : integral_constant<int, N> {};
template <typename T, int N> struct msl_count<packed_vec<T, N>> : integral_constant<int, N> {};

template <typename T, int N, int... I> struct msl_swizzle {
    vec<T, N> &whole;
    operator vec<T, sizeof...(I)>() const { return whole.template msl_get<I...>(); }
    msl_swizzle &operator=(vec<T, sizeof...(I)> from) {
        int k = 0;
        ((whole.v[I] = from.v[k++]), ...);
        return *this;
    }
#define MSL_ASSIGN(op)                                                                                                 \
    msl_swizzle &operator op##=(vec<T, sizeof...(I)> other) {                                                          \
        return *this = whole.template msl_get<I...>() op other;                                                        \
    }
    MSL_ASSIGN(+) MSL_ASSIGN(-) MSL_ASSIGN(*) MSL_ASSIGN(/) MSL_ASSIGN(%) MSL_ASSIGN(&) MSL_ASSIGN(|) MSL_ASSIGN(^)
    MSL_ASSIGN(<<) MSL_ASSIGN(>>)
#undef MSL_ASSIGN
};

template <typename T, int N> struct vec : msl_lanes<T, N> {
    using raw = typename msl_raw<T, N>::type;
    using part = decltype(raw{}[0] + raw{}[0]);
    using msl_lanes<T, N>::v;

    vec() = default;
    vec(const vec &) = default;
    // written out, so that a vector is stored as one, not as the pieces in which functions return it
    constexpr vec &operator=(const vec &o) {
        v = o.v;
        return *this;
    }
    constexpr vec(T s) : msl_lanes<T, N>{{.v = raw((__typeof__(raw{}[0]))s)}} {}
    static constexpr vec msl_from(raw r) {
        vec out(T(0));
        out.v = r;
        return out;
    }
    template <typename U> explicit constexpr vec(const vec<U, N> &o) : msl_lanes<T, N>{{.v = raw(T(0))}} {
        if constexpr (is_same<T, bool>::value) {
            for (int i = 0; i < N; i++) v[i] = o.v[i] != 0;
        } else if constexpr (is_floating_point<T>::value && is_floating_point<U>::value && sizeof(T) == sizeof(U)) {
            // between half and bfloat, of the same size, the compiler knows no way
            v = __builtin_convertvector(__builtin_convertvector(o.v, typename msl_raw<float, N>::type), raw);
        } else {
            v = __builtin_convertvector(o.v, raw);
        }
    }
    template <typename U> explicit constexpr vec(const packed_vec<U, N> &o) : vec(o.operator vec<U, N>()) {}
    template <typename A, typename B, typename... C> constexpr vec(A a, B b, C... c) : msl_lanes<T, N>{{.v = raw(T(0))}} {
        static_assert(msl_count<A>::value + msl_count<B>::value + (0 + ... + msl_count<C>::value) == N,
                      "a vector needs as many components as it has");
        int at = 0;
        put(at, a);
        put(at, b);
        (put(at, c), ...);
    }

    T &operator[](int i) { return reinterpret_cast<T *>(&v)[i]; }
    const T &operator[](int i) const { return reinterpret_cast<const T *>(&v)[i]; }

    template <int... I> constexpr vec<T, sizeof...(I)> msl_get() const {
        static_assert(((I < N) && ...), "a swizzle names a component that the vector does not have");
        return vec<T, sizeof...(I)>((T)v[I]...);
    }
    template <int... I> msl_swizzle<T, N, I...> msl_set() {
        static_assert(((I < N) && ...), "a swizzle names a component that the vector does not have");
        return {*this};
    }

#define MSL_BINARY(op)                                                                                                 \
    friend constexpr vec operator op(const vec &a, const vec &b) { return msl_from(a.v op b.v); }                                    \
    vec &operator op##=(const vec &b) { return *this = *this op b; }
    MSL_BINARY(+) MSL_BINARY(-) MSL_BINARY(*) MSL_BINARY(/) MSL_BINARY(%) MSL_BINARY(&) MSL_BINARY(|) MSL_BINARY(^)
    MSL_BINARY(<<) MSL_BINARY(>>)
#undef MSL_BINARY
#define MSL_COMPARE(op)                                                                                                \
    friend constexpr vec<bool, N> operator op(const vec &a, const vec &b) {                                                          \
        vec<bool, N> out(false);                                                                                       \
        for (int i = 0; i < N; i++) out.v[i] = a.v[i] op b.v[i];                                                       \
        return out;                                                                                                    \
    }
    MSL_COMPARE(==) MSL_COMPARE(!=) MSL_COMPARE(<) MSL_COMPARE(>) MSL_COMPARE(<=) MSL_COMPARE(>=) MSL_COMPARE(&&)
    MSL_COMPARE(||)
#undef MSL_COMPARE
    friend constexpr vec operator-(const vec &a) { return msl_from(-a.v); }
    friend constexpr vec operator+(const vec &a) { return a; }
    friend constexpr vec operator~(const vec &a) { return msl_from(~a.v); }
    friend constexpr vec<bool, N> operator!(const vec &a) { return a == vec(T(0)); }
    vec &operator++() { return *this += vec(T(1)); }
    vec &operator--() { return *this -= vec(T(1)); }

  private:
    template <typename A> constexpr void put(int &at, A s) { v[at++] = (T)s; }
    template <typename U, int M> constexpr void put(int &at, const vec<U, M> &s) {
        for (int i = 0; i < M; i++) v[at++] = (T)s.v[i];
    }
    template <typename U, int M> constexpr void put(int &at, const packed_vec<U, M> &s) { put(at, s.operator vec<U, M>()); }
};

// Without the alignment of a vector: as many bytes as its components have.
template <typename T, int N> struct packed_vec {
    T c[N];
    packed_vec() = default;
    constexpr packed_vec(vec<T, N> o) {
        for (int i = 0; i < N; i++) c[i] = (T)o.v[i];
    }
    template <typename A, typename B, typename... C> constexpr packed_vec(A a, B b, C... r) : c{(T)a, (T)b, (T)r...} {}
    constexpr operator vec<T, N>() const {
        if constexpr (sizeof(typename vec<T, N>::raw) == sizeof(c)) {
            // one load, as on a GPU, and nothing that joins its components
            return vec<T, N>::msl_from(__builtin_bit_cast(typename vec<T, N>::raw, c));
        }
        vec<T, N> out(T(0));
        for (int i = 0; i < N; i++) out.v[i] = c[i];
        return out;
    }
    T &operator[](int i) { return c[i]; }
    const T &operator[](int i) const { return c[i]; }
    template <int... I> constexpr vec<T, sizeof...(I)> msl_get() const { return vec<T, sizeof...(I)>(c[I]...); }
};

template <typename T, int C, int R> struct matrix {
    vec<T, R> c[C];
    matrix() = default;
    explicit constexpr matrix(T s) : c{} {
        for (int i = 0; i < C; i++) {
            c[i] = vec<T, R>(T(0));
            if (i < R) c[i].v[i] = s;
        }
    }
    template <typename U> explicit constexpr matrix(matrix<U, C, R> o) : c{} {
        for (int i = 0; i < C; i++) c[i] = vec<T, R>(o.c[i]);
    }
    template <typename... V, typename = enable_if_t<(sizeof...(V) == C - 1 && C > 1)>>
    constexpr matrix(vec<T, R> first, V... rest) : c{first, vec<T, R>(rest)...} {}
    template <typename... V, typename = enable_if_t<(sizeof...(V) == C * R - 1)>, typename = void>
    constexpr matrix(T first, V... rest) : c{} {
        T all[] = {first, (T)rest...};
        for (int i = 0; i < C; i++)
            for (int j = 0; j < R; j++) c[i].v[j] = all[i * R + j];
    }
    vec<T, R> &operator[](int i) { return c[i]; }
    const vec<T, R> &operator[](int i) const { return c[i]; }

#define MSL_EACH(expression)                                                                                           \
    matrix out;                                                                                                        \
    for (int i = 0; i < C; i++) out.c[i] = expression;                                                                 \
    return out;
    friend matrix operator+(matrix a, matrix b) { MSL_EACH(a.c[i] + b.c[i]) }
    friend matrix operator-(matrix a, matrix b) { MSL_EACH(a.c[i] - b.c[i]) }
    friend matrix operator*(matrix a, T s) { MSL_EACH(a.c[i] * s) }
    friend matrix operator*(T s, matrix a) { MSL_EACH(a.c[i] * s) }
    friend matrix operator-(matrix a) { MSL_EACH(-a.c[i]) }
#undef MSL_EACH
    friend vec<T, R> operator*(matrix a, vec<T, C> x) {
        vec<T, R> out = a.c[0] * vec<T, R>(x[0]);
        for (int i = 1; i < C; i++) out += a.c[i] * vec<T, R>(x[i]);
        return out;
    }
    friend vec<T, C> operator*(vec<T, R> x, matrix a) {
        vec<T, C> out;
        for (int i = 0; i < C; i++) {
            T s = x[0] * a.c[i][0];
            for (int j = 1; j < R; j++) s += x[j] * a.c[i][j];
            out[i] = s;
        }
        return out;
    }
    template <int K> friend matrix<T, K, R> operator*(matrix a, matrix<T, K, C> b) {
        matrix<T, K, R> out;
        for (int i = 0; i < K; i++) out.c[i] = a * b.c[i];
        return out;
    }
    matrix &operator+=(matrix o) { return *this = *this + o; }
    matrix &operator-=(matrix o) { return *this = *this - o; }
    matrix &operator*=(T s) { return *this = *this * s; }
};

template <typename T, int C, int R> matrix<T, R, C> transpose(matrix<T, C, R> a) {
    matrix<T, R, C> out;
    for (int i = 0; i < C; i++)
        for (int j = 0; j < R; j++) out[j][i] = a[i][j];
    return out;
}

template <typename T> constexpr T msl_bits(T x) { return x; }
template <typename T, int N> constexpr auto msl_bits(vec<T, N> x) { return x.v; }
template <typename To> struct msl_as {
    template <typename From> static constexpr To make(From x) { return __builtin_bit_cast(To, x); }
};
template <typename T, int N> struct msl_as<vec<T, N>> {
    template <typename From> static constexpr vec<T, N> make(From x) {
        return vec<T, N>::msl_from(__builtin_bit_cast(typename vec<T, N>::raw, x));
    }
};
template <typename To, typename From> constexpr To as_type(From value) {
    static_assert(sizeof(To) == sizeof(From), "as_type needs types of the same size");
    return msl_as<To>::make(msl_bits(value));
}

} // namespace metal

using metal::as_type;

#define MSL_VECTORS(T)                                                                                                 \
    typedef metal::vec<T, 2> T##2;                                                                                     \
    typedef metal::vec<T, 3> T##3;                                                                                     \
    typedef metal::vec<T, 4> T##4;
#define MSL_PACKED(T)                                                                                                  \
    typedef metal::packed_vec<T, 2> packed_##T##2;                                                                     \
    typedef metal::packed_vec<T, 3> packed_##T##3;                                                                     \
    typedef metal::packed_vec<T, 4> packed_##T##4;
#define MSL_MATRICES(T, C)                                                                                             \
    typedef metal::matrix<T, C, 2> T##C##x2;                                                                           \
    typedef metal::matrix<T, C, 3> T##C##x3;                                                                           \
    typedef metal::matrix<T, C, 4> T##C##x4;
MSL_VECTORS(bool) MSL_VECTORS(char) MSL_VECTORS(uchar) MSL_VECTORS(short) MSL_VECTORS(ushort) MSL_VECTORS(int)
MSL_VECTORS(uint) MSL_VECTORS(long) MSL_VECTORS(ulong) MSL_VECTORS(half) MSL_VECTORS(float) MSL_VECTORS(bfloat)
MSL_PACKED(char) MSL_PACKED(uchar) MSL_PACKED(short) MSL_PACKED(ushort) MSL_PACKED(int) MSL_PACKED(uint)
MSL_PACKED(half) MSL_PACKED(float) MSL_PACKED(bfloat)
MSL_MATRICES(half, 2) MSL_MATRICES(half, 3) MSL_MATRICES(half, 4)
MSL_MATRICES(float, 2) MSL_MATRICES(float, 3) MSL_MATRICES(float, 4)
#undef MSL_VECTORS
#undef MSL_PACKED
#undef MSL_MATRICES
