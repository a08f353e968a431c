// What the Metal backend's host code has to know of the TurboQuant cache types; ggml-metal-turbo.metal has the kernels.
#pragma once

#include "ggml.h"
#include "ggml-metal-device.h"

#include <stdio.h>
#include <string.h>

// Numbers of the function constants in ggml-metal-turbo.metal, far above those of the backend's own
#define TURBO_METAL_FC_K 60000
#define TURBO_METAL_FC_V 60001

static inline bool ggml_metal_turbo_type(enum ggml_type type) {
    return type == GGML_TYPE_TURBO4 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO2;
}

// Whether an operation reads or writes one of the types, and so is for ggml_metal_turbo_supports_op to judge.
static inline bool ggml_metal_turbo_op(const struct ggml_tensor * op) {
    bool found = ggml_metal_turbo_type(op->type);
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        found = found || (op->src[i] && ggml_metal_turbo_type(op->src[i]->type));
    }
    return found;
}

// Number of a type in the kernels of attention, -1 if they do not take it.
static inline int ggml_metal_turbo_attention_kind(enum ggml_type type) {
    switch (type) {
        case GGML_TYPE_TURBO4: return 3;
        case GGML_TYPE_TURBO3: return 2;
        case GGML_TYPE_TURBO2: return 1;
        case GGML_TYPE_Q8_0:   return 8;
        case GGML_TYPE_F16:    return 0;
        default:               return -1;
    }
}

// Whether attention is over a cache with one of the types, and so runs on our kernels.
static inline bool ggml_metal_turbo_attention(const struct ggml_tensor * op) {
    return ggml_metal_turbo_type(op->src[1]->type) || ggml_metal_turbo_type(op->src[2]->type);
}

// The kernel for many queries keeps queries, results and a part of the cache in threadgroup memory. Above head size 512
// that is too much even for four simdgroups, so the kernel for one query takes any number of them, too, as one
// threadgroup for each: it needs no room for parts of a result.
static inline bool ggml_metal_turbo_attention_single(const struct ggml_tensor * op) {
    return ggml_metal_turbo_attention(op) && op->src[0]->ne[0] > 512 && op->src[0]->ne[1] >= 20;
}

static inline bool ggml_metal_turbo_supports_attention(const struct ggml_tensor * op) {
    static const int sizes[][2] = {
        { 64, 64 }, { 128, 128 }, { 192, 192 }, { 192, 128 }, { 256, 256 }, { 320, 256 }, { 512, 512 }, { 576, 512 },
    };
    const struct ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2];
    if (q->type != GGML_TYPE_F32 || ggml_metal_turbo_attention_kind(k->type) < 0 ||
        ggml_metal_turbo_attention_kind(v->type) < 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); ++i) {
        if (k->ne[0] == sizes[i][0] && v->ne[0] == sizes[i][1]) {
            return true;
        }
    }
    return false;
}

// What has a kernel: attention, and rows and copies from and to what the graph of a cache uses. Not products of matrices,
// which a cache without flash attention would need.
static inline bool ggml_metal_turbo_supports_op(const struct ggml_tensor * op, bool has_simdgroup_mm) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_PERMUTE:
            return true;
        case GGML_OP_FLASH_ATTN_EXT:
            return has_simdgroup_mm && ggml_metal_turbo_supports_attention(op);
        case GGML_OP_GET_ROWS:
            return op->type == GGML_TYPE_F32 && op->src[1]->type == GGML_TYPE_I32;
        case GGML_OP_SET_ROWS:
            return has_simdgroup_mm && op->src[0]->type == GGML_TYPE_F32 &&
                   (op->src[1]->type == GGML_TYPE_I64 || op->src[1]->type == GGML_TYPE_I32);
        case GGML_OP_CPY:
        case GGML_OP_DUP:
            if (op->src[0]->type == GGML_TYPE_F32) {
                return has_simdgroup_mm && op->src[0]->ne[0] % 64 == 0;
            }
            return op->type == GGML_TYPE_F32 || op->type == GGML_TYPE_F16;
        default:
            return false;
    }
}

// What the name of a pipeline (a kernel with its constants, 256 bytes) says beside the kernel's.
static inline void ggml_metal_turbo_attention_name(const struct ggml_tensor * op, char * name) {
    const size_t length = strlen(name);
    snprintf(name + length, 256 - length, "_k=%s_v=%s", ggml_type_name(op->src[1]->type), ggml_type_name(op->src[2]->type));
}

static inline void ggml_metal_turbo_attention_constants(const struct ggml_tensor * op, ggml_metal_cv_t constants) {
    if (ggml_metal_turbo_attention(op)) {
        ggml_metal_cv_set_int16(constants, (int16_t) ggml_metal_turbo_attention_kind(op->src[1]->type), TURBO_METAL_FC_K);
        ggml_metal_cv_set_int16(constants, (int16_t) ggml_metal_turbo_attention_kind(op->src[2]->type), TURBO_METAL_FC_V);
    }
}

// Threads of a threadgroup that writes rows of so many blocks: a simdgroup encodes a block.
static inline int ggml_metal_turbo_encode_threads(int64_t blocks) {
    return 32 * (int) (blocks < 8 ? blocks : 8);
}
