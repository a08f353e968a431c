// Operations as dispatches of kernels.
#pragma once

#include "ggml-metal-device.h"

#ifdef __cplusplus
extern "C" {
#endif

// The operations of a graph that are to be encoded; of the flags, none is heeded.
typedef struct ggml_metal_op * ggml_metal_op_t;

ggml_metal_op_t ggml_metal_op_init(
    ggml_metal_device_t dev, ggml_metal_cmd_buf_t cmd_buf, struct ggml_cgraph * gf, int idx_start, int idx_end,
    bool use_fusion, bool use_concurrency, bool use_capture, int debug_graph, int debug_fusion);
void ggml_metal_op_free(ggml_metal_op_t ctx);
int  ggml_metal_op_encode(ggml_metal_op_t ctx, int idx);

int ggml_metal_op_get_rows(ggml_metal_op_t ctx, int idx);
int ggml_metal_op_set_rows(ggml_metal_op_t ctx, int idx);
int ggml_metal_op_cpy(ggml_metal_op_t ctx, int idx);
int ggml_metal_op_flash_attn_ext(ggml_metal_op_t ctx, int idx);

// Whether attention runs on the kernel for one query, and the bytes that its result needs behind itself then.
bool   ggml_metal_op_flash_attn_ext_use_vec(const struct ggml_tensor * op);
size_t ggml_metal_op_flash_attn_ext_extra_tmp(const struct ggml_tensor * op);

#ifdef __cplusplus
}
#endif
