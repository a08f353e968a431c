// Operations on 2D tensors; the operands are dst->src[].
#pragma once

#include "ggml-cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

void ggml_compute_forward_add     (const struct ggml_compute_params * params, struct ggml_tensor * dst);
void ggml_compute_forward_add1    (const struct ggml_compute_params * params, struct ggml_tensor * dst);
void ggml_compute_forward_acc     (const struct ggml_compute_params * params, struct ggml_tensor * dst);
void ggml_compute_forward_out_prod(const struct ggml_compute_params * params, struct ggml_tensor * dst);
void ggml_compute_forward_set     (const struct ggml_compute_params * params, struct ggml_tensor * dst);
void ggml_compute_forward_get_rows(const struct ggml_compute_params * params, struct ggml_tensor * dst);
void ggml_compute_forward_clamp   (const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
