// What a processor does with a type: the fast conversion to it, and its inner product.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// *s becomes the inner product of n values of each of two rows. One pair of rows at a time: nrc is 1, and the strides
// that several would need (bs, bx, by) are not looked at.
typedef void ggml_dot(
    int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc);
typedef ggml_dot * ggml_vec_dot_t;

struct ggml_type_traits_cpu {
    ggml_from_float_t from_float;
    ggml_vec_dot_t    vec_dot;
    enum ggml_type    vec_dot_type; // of the other row
    int64_t           nrows;        // pairs that vec_dot can take at a time
};

// What computing a tensor takes beside its operands.
struct ggml_cplan {
    size_t work_size; // bytes
};

GGML_API struct ggml_cplan ggml_graph_plan(const struct ggml_tensor * node, int n_tasks);

GGML_API const struct ggml_type_traits_cpu * ggml_get_type_traits_cpu(enum ggml_type type);

#ifdef __cplusplus
}
#endif
