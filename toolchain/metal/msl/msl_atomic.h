// Atomic types and functions. MSL's order is relaxed throughout.
#pragma once
#include "msl_types.h"

namespace metal {

enum memory_order { memory_order_relaxed = __ATOMIC_RELAXED };
enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };

template <typename T> struct atomic {
    T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<ulong> atomic_ulong;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;

template <typename T> T atomic_load_explicit(const volatile atomic<T> *a, memory_order) {
    T out;
    __atomic_load(&a->value, &out, __ATOMIC_RELAXED);
    return out;
}
template <typename T> void atomic_store_explicit(volatile atomic<T> *a, msl_same_t<T> x, memory_order) {
    __atomic_store(&a->value, &x, __ATOMIC_RELAXED);
}
template <typename T> T atomic_exchange_explicit(volatile atomic<T> *a, msl_same_t<T> x, memory_order) {
    T out;
    __atomic_exchange(&a->value, &x, &out, __ATOMIC_RELAXED);
    return out;
}
template <typename T>
bool atomic_compare_exchange_weak_explicit(volatile atomic<T> *a, T *expected, msl_same_t<T> x, memory_order, memory_order) {
    return __atomic_compare_exchange(&a->value, expected, &x, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
#define MSL_FETCH(name, expression)                                                                                    \
    template <typename T> T atomic_fetch_##name##_explicit(volatile atomic<T> *a, msl_same_t<T> x, memory_order) {     \
        T old, next;                                                                                                   \
        __atomic_load(&a->value, &old, __ATOMIC_RELAXED);                                                              \
        do {                                                                                                           \
            next = (T)(expression);                                                                                    \
        } while (!__atomic_compare_exchange(&a->value, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));       \
        return old;                                                                                                    \
    }
MSL_FETCH(add, old + x)
MSL_FETCH(sub, old - x)
MSL_FETCH(min, x < old ? x : old)
MSL_FETCH(max, old < x ? x : old)
MSL_FETCH(and, old & x)
MSL_FETCH(or, old | x)
MSL_FETCH(xor, old ^ x)
#undef MSL_FETCH

} // namespace metal
