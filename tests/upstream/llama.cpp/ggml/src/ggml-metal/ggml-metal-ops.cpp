#include "ggml-metal-ops.h"

#include "ggml-impl.h"
#include "ggml-metal-device.h"
#include "ggml-metal-impl.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

struct ggml_metal_op {
    ggml_metal_device_t  dev;
    ggml_metal_library_t lib;
    ggml_metal_encoder_t enc;
    ggml_cgraph *        graph;

    ggml_tensor * node(int idx) const { return ggml_graph_node(graph, idx); }
};

ggml_metal_op_t ggml_metal_op_init(ggml_metal_device_t dev, ggml_metal_cmd_buf_t cmd_buf, ggml_cgraph * gf, int, int, bool,
                                   bool use_concurrency, bool, int, int) {
    return new ggml_metal_op { dev, ggml_metal_device_get_library(dev), ggml_metal_encoder_init(cmd_buf, use_concurrency), gf };
}

void ggml_metal_op_free(ggml_metal_op_t ctx) {
    ggml_metal_encoder_end_encoding(ctx->enc);
    ggml_metal_encoder_free(ctx->enc);
    delete ctx;
}

static ggml_metal_buffer_id ggml_metal_get_buffer_id(const ggml_tensor * tensor) {
    return ggml_metal_buffer_get_id(nullptr, tensor);
}

// What was dispatched before is done before what follows.
static bool ggml_metal_op_concurrency_reset(ggml_metal_op_t ctx) {
    ggml_metal_encoder_memory_barrier(ctx->enc);
    return true;
}

int ggml_metal_op_encode(ggml_metal_op_t ctx, int idx) {
    switch (ctx->node(idx)->op) {
        case GGML_OP_GET_ROWS:       return ggml_metal_op_get_rows(ctx, idx);
        case GGML_OP_SET_ROWS:       return ggml_metal_op_set_rows(ctx, idx);
        case GGML_OP_CPY:            return ggml_metal_op_cpy(ctx, idx);
        case GGML_OP_FLASH_ATTN_EXT: return ggml_metal_op_flash_attn_ext(ctx, idx);
        default:                     GGML_ABORT("no operation %d", (int) ctx->node(idx)->op); return 0;
    }
}

int ggml_metal_op_get_rows(ggml_metal_op_t ctx, int idx) {
    ggml_tensor * op = ctx->node(idx);

    ggml_metal_kargs_get_rows args = { (int32_t) op->ne[0] / 16, (int32_t) op->src[1]->ne[0], op->src[0]->nb[1], op->nb[1] };

    const int nth = std::min(args.ne00t, 256);
    ggml_metal_encoder_set_pipeline(ctx->enc, ggml_metal_library_get_pipeline_get_rows(ctx->lib, op->src[0]->type));
    ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op->src[0]), 1);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op->src[1]), 2);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op), 3);
    ggml_metal_encoder_dispatch_threadgroups(ctx->enc, (args.ne00t + nth - 1) / nth * args.ne10, 1, 1, nth, 1, 1);
    return 1;
}

int ggml_metal_op_set_rows(ggml_metal_op_t ctx, int idx) {
    ggml_tensor * op = ctx->node(idx);
    const ggml_tensor * from = op->src[0], * numbers = op->src[1];

    const int nk0 = (int) (op->ne[0] / ggml_blck_size(op->type));

    // a thread for each block, and several rows in a threadgroup
    int nth   = 32;
    int nrptg = std::max(1, nth / nk0);
    nth       = std::min(nth, nk0);

    ggml_metal_kargs_set_rows args = {
        nk0, (int32_t) from->ne[1], from->nb[1], from->nb[2], from->nb[3], (int32_t) numbers->ne[1], (int32_t) numbers->ne[2],
        numbers->nb[0], numbers->nb[1], numbers->nb[2], op->nb[1], op->nb[2], op->nb[3],
    };
    ggml_metal_encoder_set_pipeline(ctx->enc, ggml_metal_library_get_pipeline_set_rows(ctx->lib, op));
    ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(from), 1);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(numbers), 2);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op), 3);
    ggml_metal_encoder_dispatch_threadgroups(
        ctx->enc, (args.ne01 + nrptg - 1) / nrptg, (int) from->ne[2], (int) from->ne[3], nth, nrptg, 1);
    return 1;
}

int ggml_metal_op_cpy(ggml_metal_op_t ctx, int idx) {
    ggml_tensor * op = ctx->node(idx);
    const ggml_tensor * from = op->src[0];

    // pieces of a row: 16 values to decode, a block to encode
    const int nk0 = (int) (from->ne[0] / (ggml_is_quantized(from->type) ? 16 : ggml_blck_size(op->type)));

    int nth = 256;
    nth     = std::min<int>(nth, nk0);

    ggml_metal_kargs_cpy args = {
        nk0, from->ne[0], from->ne[1], from->ne[2], from->nb[0], from->nb[1], from->nb[2], from->nb[3],
        op->ne[0], op->ne[1], op->ne[2], op->nb[0], op->nb[1], op->nb[2], op->nb[3],
    };
    ggml_metal_encoder_set_pipeline(ctx->enc, ggml_metal_library_get_pipeline_cpy(ctx->lib, from->type, op->type));
    ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(from), 1);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op), 2);
    ggml_metal_encoder_dispatch_threadgroups(
        ctx->enc, (nk0 + nth - 1) / nth * (int) from->ne[1], (int) from->ne[2], (int) from->ne[3], nth, 1, 1);
    return 1;
}

bool ggml_metal_op_flash_attn_ext_use_vec(const ggml_tensor * op) {
    const int64_t ne00 = op->src[0]->ne[0], ne01 = op->src[0]->ne[1];
    return (ne01 < 20) && ne00 % 32 == 0;
}

#define PARTS 4

size_t ggml_metal_op_flash_attn_ext_extra_tmp(const ggml_tensor * op) {
    const size_t rows = (size_t) (std::min<int64_t>(op->src[0]->ne[1], 20) * op->src[0]->ne[2]);
    return rows * PARTS * (size_t) (op->src[2]->ne[0] + 2) * sizeof(float);
}

int ggml_metal_op_flash_attn_ext(ggml_metal_op_t ctx, int idx) {
    ggml_tensor * op = ctx->node(idx);
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3], * sinks = op->src[4];
    const int ne00 = (int) q->ne[0], ne01 = (int) q->ne[1], ne02 = (int) q->ne[2], ne20 = (int) v->ne[0];

    GGML_ASSERT(op->src[1]->type == op->src[2]->type);
    GGML_ASSERT(k->ne[1] == v->ne[1] && k->ne[2] == v->ne[2] && q->ne[3] == 1);

    float scale, max_bias, softcap;
    memcpy(&scale, op->op_params + 0, sizeof(scale));
    memcpy(&max_bias, op->op_params + 1, sizeof(max_bias));
    memcpy(&softcap, op->op_params + 2, sizeof(softcap));
    if (softcap != 0.0f) {
        scale /= softcap;
    }
    const bool has_bias = max_bias != 0.0f, has_scap = softcap != 0.0f;
    const int  power = 1 << (int) floorf(log2f((float) ne02));

    ggml_metal_kargs_attention args = {
        ne01, (int32_t) k->ne[1], (int32_t) (ne02 / k->ne[2]), ne02, q->nb[1], q->nb[2], k->nb[1], k->nb[2], v->nb[1], v->nb[2],
        mask ? mask->nb[1] : 0, scale, softcap,
        { powf(2.0f, -max_bias / (float) power), powf(2.0f, -max_bias / 2.0f / (float) power) }, power,
    };
    const ggml_metal_buffer_id dst = ggml_metal_get_buffer_id(op);
    const bool vec = ggml_metal_op_flash_attn_ext_use_vec(op);
    int nwg = 1;

    ggml_metal_pipeline_with_params pipeline;
    if (vec) {
        if (false) {
            // one threadgroup can write the result itself; hardly faster, so it is off
            nwg = 1;
            assert(ggml_metal_op_flash_attn_ext_extra_tmp(op) == 0);
        } else {
            nwg = PARTS;
        }
        pipeline = ggml_metal_library_get_pipeline_flash_attn_ext_vec(ctx->lib, op, mask, sinks, has_bias, has_scap, nwg);
    } else {
        pipeline = ggml_metal_library_get_pipeline_flash_attn_ext(ctx->lib, op, mask, sinks, has_bias, has_scap);
    }
    ggml_metal_buffer_id out = dst;
    out.offs += nwg > 1 ? ggml_nbytes(op) : 0;
    ggml_metal_encoder_set_pipeline(ctx->enc, pipeline);
    ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(q), 1);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(k), 2);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(v), 3);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(mask ? mask : q), 4);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(sinks ? sinks : q), 5);
    ggml_metal_encoder_set_buffer(ctx->enc, out, 6);
    if (vec) {
        ggml_metal_encoder_set_threadgroup_memory_size(ctx->enc, sizeof(uint16_t) * (size_t) ne00, 0);
        ggml_metal_encoder_dispatch_threadgroups(ctx->enc, ne01, ne02, nwg, 32, 1, 1);
    } else {
        // long values and those that have to be decoded are shared by two simdgroups
        const int is_q = ggml_is_quantized(op->src[1]->type) ? 1 : 0;
        const int nsg  = ne00 >= 512 ? 2 : 1 + is_q;
        // queries and results; for each simdgroup, products and 64 decoded values of 8 positions
        const size_t memory = ATTENTION_QUERIES * (2 * (size_t) ne00 + 4 * (size_t) ne20) + (size_t) nsg * (256 + 1024);
        ggml_metal_encoder_set_threadgroup_memory_size(ctx->enc, memory, 0);
        ggml_metal_encoder_dispatch_threadgroups(
            ctx->enc, (ne01 + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES, ne02, 1, 32, nsg, 1);
    }
    if (nwg > 1) {
        int32_t rows = ne01 * ne02, width = ne20;
        ggml_metal_encoder_memory_barrier(ctx->enc);
        ggml_metal_encoder_set_pipeline(ctx->enc, ggml_metal_library_get_pipeline_flash_attn_ext_vec_reduce(ctx->lib, nwg));
        ggml_metal_encoder_set_bytes(ctx->enc, &rows, sizeof(rows), 0);
        ggml_metal_encoder_set_bytes(ctx->enc, &width, sizeof(width), 1);
        ggml_metal_encoder_set_buffer(ctx->enc, out, 2);
        ggml_metal_encoder_set_buffer(ctx->enc, dst, 3);
        ggml_metal_encoder_dispatch_threadgroups(ctx->enc, rows, 1, 1, 64, 1, 1);
    }
    return 1;
}
