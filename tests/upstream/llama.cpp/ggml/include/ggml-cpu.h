// What the CPU adds to a type: the fast conversion to it, and its inner product.
#pragma once

#include "ggml.h"

#define GGML_BACKEND_API extern

#ifdef __cplusplus
extern "C" {
#endif

    typedef void (*ggml_vec_dot_t)(int n, float * GGML_RESTRICT s, size_t bs, const void * GGML_RESTRICT x, size_t bx,
                                   const void * GGML_RESTRICT y, size_t by, int nrc);

    struct ggml_type_traits_cpu {
        ggml_from_float_t from_float;
        ggml_vec_dot_t    vec_dot;
        enum ggml_type    vec_dot_type; // what the other operand of vec_dot is converted to
        int64_t           nrows;
    };

    struct ggml_compute_params {
        int    ith, nth; // this thread, and how many there are
        size_t wsize;
        void * wdata;    // scratch memory, at least one row of floats
    };

    GGML_BACKEND_API const struct ggml_type_traits_cpu * ggml_get_type_traits_cpu(enum ggml_type type);

    GGML_BACKEND_API void ggml_cpu_init(void);

#ifdef __cplusplus
}
#endif
