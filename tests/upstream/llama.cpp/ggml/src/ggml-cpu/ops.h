// Operations on rows. The operands are dst->src[]; each thread of params does its share of the rows.
#pragma once

#include "ggml-cpu-impl.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void ggml_forward(const struct ggml_compute_params * params, struct ggml_tensor * dst);

ggml_forward ggml_compute_forward_add;      // src0 + src1, which is of floats
ggml_forward ggml_compute_forward_add1;     // src0 + the one float that is src1
ggml_forward ggml_compute_forward_clamp;    // src0, which is of floats, held within dst->limits
ggml_forward ggml_compute_forward_get_rows; // as floats: those rows of src0 whose numbers src1 has
ggml_forward ggml_compute_forward_out_prod; // for each column of src1: the sum of src0's rows, weighted by it

// Of queries src0, keys src1 and values src2, [size, tokens, heads]: what each query sees, [size, heads, tokens]. src3 may
// be a mask, of half precision and [keys, queries]. Several heads of queries share one of keys.
ggml_forward ggml_compute_forward_flash_attn_ext;

#ifdef __cplusplus
}
#endif
