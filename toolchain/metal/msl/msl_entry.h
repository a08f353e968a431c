// How the generated entry of a kernel hands it its arguments: by the types of the kernel's own parameters.
#pragma once
#include "msl_interface.h"
#include "msl_vector.h"

namespace metal {

template <int I, typename R, typename... P> auto msl_pick(R (*)(P...)) -> msl_same<__type_pack_element<I, P...>>;
template <typename F, int I> using msl_parameter_t = typename decltype(msl_pick<I>((F) nullptr))::type;

template <typename T> struct msl_pointee { using type = T; static constexpr bool whole = true; };
template <typename T> struct msl_pointee<T *> { using type = T; static constexpr bool whole = false; };
template <typename T> struct msl_is_const : false_type {};
template <typename T> struct msl_is_const<const T> : true_type {};
template <typename T> struct msl_size : integral_constant<unsigned long, sizeof(T)> {};
template <> struct msl_size<void> : integral_constant<unsigned long, 1> {};
template <> struct msl_size<const void> : integral_constant<unsigned long, 1> {};

// A pointer or reference parameter as the executor's table describes it.
template <typename F, int I> struct msl_describe {
    using bare = remove_reference_t<msl_parameter_t<F, I>>;
    using kind = msl_pointee<remove_cv_t<bare>>;
    using type = conditional_t<kind::whole, bare, typename kind::type>;
    static constexpr unsigned long size = msl_size<type>::value;
    static constexpr int whole = kind::whole;
    static constexpr int writable = !msl_is_const<type>::value;
};

template <typename F, int I> remove_cv_t<msl_parameter_t<F, I>> msl_pointer(void *p) {
    return (remove_cv_t<msl_parameter_t<F, I>>)p;
}
template <typename F, int I> msl_parameter_t<F, I> msl_reference(void *p) {
    return *(remove_reference_t<msl_parameter_t<F, I>> *)p;
}
template <typename T> struct msl_index {
    static T make(const unsigned *c) { return (T)c[0]; }
};
template <typename T> struct msl_index<vec<T, 2>> {
    static vec<T, 2> make(const unsigned *c) { return vec<T, 2>((T)c[0], (T)c[1]); }
};
template <typename T> struct msl_index<vec<T, 3>> {
    static vec<T, 3> make(const unsigned *c) { return vec<T, 3>((T)c[0], (T)c[1], (T)c[2]); }
};
template <typename F, int I> remove_cv_t<msl_parameter_t<F, I>> msl_position(const unsigned *c) {
    return msl_index<remove_cv_t<msl_parameter_t<F, I>>>::make(c);
}

} // namespace metal
