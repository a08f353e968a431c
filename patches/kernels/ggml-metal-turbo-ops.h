// Host code of our Metal kernels: which operations they do, and how they are dispatched. ggml-metal-ops.cpp includes this
// once, behind its own helpers, whose functions it uses; nothing here asks for a kernel of the backend's own.
#pragma once

#include "ggml-metal-turbo.h"
#include "ggml-metal-turbo-args.h"
#include "ggml-metal-turbo-source.h"
#include "ggml-turbo-types.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {

// -- the kernels of a device ------------------------------------------------------------------------------------

// What was compiled for a device, once. A kernel that could not be made stays so, and is not tried again.
struct turbo_kernels {
    ggml_metal_library_t                                   library = nullptr;
    std::map<std::string, ggml_metal_pipeline_with_params> pipelines;
};

std::mutex                                   turbo_mutex;
std::map<ggml_metal_device_t, turbo_kernels> turbo_devices; // as long as the process, like the devices themselves

// Those of a device, compiled when they are first asked for; the caller has the lock. What cannot be had is logged as an
// error, which is shown at any verbosity, as a program may first ask while it holds back its log.
turbo_kernels & turbo_kernels_of(ggml_metal_device_t dev) {
    const auto found = turbo_devices.find(dev);
    if (found != turbo_devices.end()) {
        return found->second;
    }
    turbo_kernels & made = turbo_devices[dev];
    if (!ggml_metal_device_get_props(dev)->has_simdgroup_mm) {
        GGML_LOG_ERROR("ggml_metal_turbo: this GPU has no SIMD-group matrices; a cache of turbo types stays on the CPU\n");
        return made;
    }
    made.library = ggml_metal_library_init_from_source(dev, ggml_metal_turbo_source, true);
    if (!made.library) {
        GGML_LOG_ERROR("ggml_metal_turbo: the kernels do not compile (see above); a cache of turbo types stays on the CPU\n");
    }
    return made;
}

// A kernel with its function constants. `pipeline` is null in the result if it cannot be had.
ggml_metal_pipeline_with_params turbo_pipeline(ggml_metal_device_t dev, const char * kernel, int k = -1, int v = -1, int features = -1) {
    char name[128];
    snprintf(name, sizeof(name), "%s_%d_%d_%d", kernel, k, v, features);
    const std::lock_guard<std::mutex> lock(turbo_mutex);
    turbo_kernels & kernels = turbo_kernels_of(dev);
    const auto found = kernels.pipelines.find(name);
    if (found != kernels.pipelines.end()) {
        return found->second;
    }
    ggml_metal_pipeline_with_params & made = kernels.pipelines[name];
    if (kernels.library) {
        ggml_metal_cv_t constants = ggml_metal_cv_init();
        ggml_metal_cv_set_int16(constants, (int16_t) k, TURBO_FC_K);
        ggml_metal_cv_set_int16(constants, (int16_t) v, TURBO_FC_V);
        ggml_metal_cv_set_int16(constants, (int16_t) features, TURBO_FC_FEATURES);
        made = ggml_metal_library_compile_pipeline(kernels.library, kernel, name, constants);
        ggml_metal_cv_free(constants);
        if (!made.pipeline) {
            GGML_LOG_ERROR("ggml_metal_turbo: %s cannot be made (see above); what needs it stays on the CPU\n", kernel);
        }
    }
    return made;
}

bool turbo_type(ggml_type type) {
#define TURBO_TYPE(ID, id, RAW) type == GGML_TYPE_##ID ||
    return TURBO_TYPES(TURBO_TYPE) false;
}

// Makes a kernel the next to be dispatched. Ours have their threadgroup memory as variables; what an operation before has set
// as an argument's length stays with the encoder, and is made small, lest it counts beside them.
void turbo_set_pipeline(ggml_metal_op_t ctx, const ggml_metal_pipeline_with_params & pipeline) {
    ggml_metal_encoder_set_pipeline(ctx->enc, pipeline);
    ggml_metal_encoder_set_threadgroup_memory_size(ctx->enc, 16, 0);
}

// -- rows and copies --------------------------------------------------------------------------------------------

// Whether values, or blocks, follow each other in a row.
bool turbo_dense(const ggml_tensor * tensor) {
    return tensor->nb[0] == ggml_type_size(tensor->type);
}

// Whether a result of floats can be written four at a time.
bool turbo_in_fours(const ggml_tensor * op) {
    const size_t four = 4 * ggml_type_size(op->type);
    return op->view_offs % four == 0 && op->nb[1] % four == 0 && op->nb[2] % four == 0 && op->nb[3] % four == 0;
}

// The kernel of an operation on rows; empty if there is none.
std::string turbo_rows_kernel(const ggml_tensor * op) {
    const ggml_tensor * from = op->src[0];
    if (!from || !turbo_dense(from) || !turbo_dense(op) || (!turbo_type(op->type) && !turbo_in_fours(op))) {
        return "";
    }
    switch (op->op) {
        case GGML_OP_GET_ROWS:
            if (op->type == GGML_TYPE_F32 && op->src[1]->type == GGML_TYPE_I32) {
                return std::string("kernel_turbo_get_rows_") + ggml_type_name(from->type);
            }
            return "";
        case GGML_OP_SET_ROWS:
            if (from->type == GGML_TYPE_F32 && (op->src[1]->type == GGML_TYPE_I64 || op->src[1]->type == GGML_TYPE_I32)) {
                return std::string("kernel_turbo_set_rows_") + ggml_type_name(op->src[1]->type) + "_" + ggml_type_name(op->type);
            }
            return "";
        case GGML_OP_CPY:
        case GGML_OP_DUP: {
            const bool to = turbo_type(op->type) && from->type == GGML_TYPE_F32;
            const bool back = turbo_type(from->type) && (op->type == GGML_TYPE_F32 || op->type == GGML_TYPE_F16);
            // A block must not straddle two rows, of the source or of the result
            if ((to || back) && from->ne[0] % 64 == 0 && op->ne[0] % 64 == 0) {
                return std::string("kernel_turbo_copy_") + ggml_type_name(from->type) + "_" + ggml_type_name(op->type);
            }
            return "";
        }
        default:
            return "";
    }
}

// Threads for a row: a simdgroup encodes a block, a thread decodes an eighth of one.
int turbo_row_threads(const ggml_tensor * op, int64_t blocks) {
    return turbo_type(op->type) ? 32 * (int) std::min<int64_t>(blocks, 8) : 32 * (int) std::min<int64_t>((blocks + 3) / 4, 8);
}

int turbo_encode_rows(ggml_metal_op_t ctx, ggml_tensor * op) {
    const ggml_tensor * from = op->src[0], * index = op->src[1];
    if (from->ne[1] == 0 || from->ne[2] == 0 || from->ne[3] == 0) {
        return 1; // the result may well not be: rows of it are left as they are
    }
    const auto pipeline = turbo_pipeline(ctx->dev, turbo_rows_kernel(op).c_str());
    GGML_ASSERT(pipeline.pipeline);
    const int blocks = (int) (from->ne[0] / 64);
    turbo_set_pipeline(ctx, pipeline);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(from), 1);
    if (op->op == GGML_OP_CPY || op->op == GGML_OP_DUP) {
        turbo_copy_args args = {
            blocks, from->ne[0], from->ne[1], from->ne[2], op->ne[0], op->ne[1], op->ne[2],
            from->nb[0], from->nb[1], from->nb[2], from->nb[3], op->nb[0], op->nb[1], op->nb[2], op->nb[3],
        };
        ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
        ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op), 2);
        ggml_metal_encoder_dispatch_threadgroups(
            ctx->enc, (int) from->ne[1], (int) from->ne[2], (int) from->ne[3], turbo_row_threads(op, blocks), 1, 1);
        return 1;
    }
    turbo_rows_args args = {
        blocks, (int32_t) index->ne[0], (int32_t) index->ne[1], (int32_t) index->ne[2],
        from->nb[1], from->nb[2], from->nb[3], index->nb[0], index->nb[1], index->nb[2], op->nb[1], op->nb[2], op->nb[3],
    };
    ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(index), 2);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(op), 3);
    // GET_ROWS reads as many rows as the index has, SET_ROWS writes as many as the source has
    const ggml_tensor * rows = op->op == GGML_OP_SET_ROWS ? from : nullptr;
    ggml_metal_encoder_dispatch_threadgroups(
        ctx->enc, (int) (rows ? rows->ne[1] : index->ne[0]), (int) (rows ? rows->ne[2] : index->ne[1]),
        (int) (rows ? rows->ne[3] : index->ne[2]), turbo_row_threads(op, blocks), 1, 1);
    return 1;
}

// -- attention --------------------------------------------------------------------------------------------------

int turbo_kind(ggml_type type) {
#define TURBO_KIND(ID, id, RAW) case GGML_TYPE_##ID: return RAW;
    switch (type) {
        TURBO_TYPES(TURBO_KIND)
        case GGML_TYPE_Q8_0:   return TURBO_KIND_Q8_0;
        case GGML_TYPE_Q4_0:   return TURBO_KIND_Q4_0;
        case GGML_TYPE_F16:    return TURBO_KIND_F16;
        case GGML_TYPE_BF16:   return TURBO_KIND_BF16;
        default:               return -1;
    }
}

// Head sizes that have kernels: of K and V, simdgroups that hold a slice of a head each, and how many times 8 rows a
// simdgroup can take, for which its registers have to hold results.
struct turbo_size {
    int dk, dv, parts, rows;
};

const turbo_size turbo_sizes[] = {
    { 64, 64, 1, 2 },   { 128, 128, 1, 2 }, { 192, 128, 1, 1 }, { 192, 192, 1, 1 },
    { 256, 256, 1, 1 }, { 320, 256, 1, 1 }, { 512, 512, 2, 1 }, { 576, 512, 2, 1 },
};

constexpr int TURBO_FEW_SIMDGROUPS = 4, TURBO_MANY_SIMDGROUPS = 16;
constexpr int TURBO_MOST_GROUPS = 64; // large threadgroups that parts are made for, at most

// How an operation is computed; of its sizes and types alone, so that reservation and dispatch agree.
struct turbo_plan {
    const turbo_size * size = nullptr; // null: there is no kernel for it
    bool               few = false;
    bool               divisible = false; // positions enough for parts, if the rows are few enough
    int                group = 1, rows = 1, splits = 1, features = 0;
    int                each = 8; // rows of a simdgroup, or of those that hold slices of a head together
    char               kernel[80] = "";
};

// Whether V is the first part of every row of K, as in a cache of MLA.
bool turbo_v_in_k(const ggml_tensor * k, const ggml_tensor * v) {
    const ggml_tensor * whole = k->view_src ? k->view_src : k;
    return v->view_src == whole && v->view_offs == (k->view_src ? k->view_offs : 0) && v->type == k->type && v->nb[1] == k->nb[1] &&
           v->nb[2] == k->nb[2] && v->nb[3] == k->nb[3];
}

float turbo_parameter(const ggml_tensor * op, int at) {
    float value;
    memcpy(&value, (const int32_t *) op->op_params + at, sizeof(value));
    return value;
}

turbo_plan turbo_plan_of(const ggml_tensor * op) {
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3], * sinks = op->src[4];
    turbo_plan plan;
    for (int i = 5; i < GGML_MAX_SRC; ++i) {
        if (op->src[i]) {
            return plan; // something newer than these kernels
        }
    }
    const bool fits = q->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32 && turbo_kind(k->type) >= 0 && turbo_kind(v->type) >= 0 &&
        q->nb[0] == sizeof(float) && k->nb[0] == ggml_type_size(k->type) && v->nb[0] == ggml_type_size(v->type) &&
        q->ne[0] == k->ne[0] && k->ne[1] == v->ne[1] && k->ne[2] == v->ne[2] && k->ne[3] == v->ne[3] &&
        q->ne[1] > 0 && q->ne[2] > 0 && q->ne[3] > 0 && k->ne[2] > 0 && k->ne[3] > 0 && q->ne[2] % k->ne[2] == 0 &&
        q->ne[3] % k->ne[3] == 0 &&
        (!mask || (mask->type == GGML_TYPE_F16 && mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1])) &&
        (!sinks || sinks->type == GGML_TYPE_F32);
    for (const turbo_size & size : turbo_sizes) {
        plan.size = fits && k->ne[0] == size.dk && v->ne[0] == size.dv ? &size : plan.size;
    }
    if (!plan.size) {
        return plan;
    }
    plan.group    = (int) (q->ne[2] / k->ne[2]);
    plan.rows     = plan.group * (int) q->ne[1];
    plan.few      = plan.rows <= 8 * plan.size->rows;
    plan.features = (mask ? TURBO_HAS_MASK : 0) | (sinks ? TURBO_HAS_SINKS : 0) | (turbo_parameter(op, 1) != 0 ? TURBO_HAS_BIAS : 0) |
                    (turbo_parameter(op, 2) != 0 ? TURBO_HAS_CAP : 0) | (turbo_v_in_k(k, v) ? TURBO_V_IN_K : 0);
    const int heads = (int) (k->ne[2] * q->ne[3]), blocks = (int) ((k->ne[1] + TURBO_TILE - 1) / TURBO_TILE);
    plan.divisible = blocks >= 8;
    const int most = TURBO_MANY_SIMDGROUPS / plan.size->parts; // slices aside, simdgroups of a threadgroup of `many`
    if (plan.few) {
        plan.each = plan.rows > 8 ? 16 : 8;
        // Two blocks or more for each simdgroup, some 2000 simdgroups at most
        const int stripes = TURBO_FEW_SIMDGROUPS / plan.size->parts;
        plan.splits = std::max(1, std::min({ blocks / (2 * stripes), 512 / heads, 64 }));
    } else {
        // More rows for a block that was decoded, where they fill the threadgroups
        plan.each = plan.rows >= 8 * most * plan.size->rows ? 8 * plan.size->rows : 8;
        // Threadgroups are large, so that splitting is for those alone that are too few for a GPU
        const int groups = heads * ((plan.rows + plan.each * most - 1) / (plan.each * most));
        plan.splits = groups >= 32 ? 1 : std::max(1, std::min({ blocks / 4, TURBO_MOST_GROUPS / groups, 32 }));
    }
    snprintf(plan.kernel, sizeof(plan.kernel), "kernel_turbo_attention_%s_dk%d_dv%d_rows%d", plan.few ? "few" : "many", plan.size->dk,
             plan.size->dv, plan.each / 8);
    return plan;
}

// Bytes for the results of all parts, and their tops and sums: room for the most that turbo_plan_of ever makes of a head
// size, times its rows, however many rows there are. A graph is reserved for the largest batch, whose threadgroups may need
// no parts at all; were a smaller one to need more, it would be reserved anew, and the next large one again.
size_t turbo_work_bytes(const turbo_plan & plan) {
    if (!plan.size || !plan.divisible) {
        return 0;
    }
    const size_t parts = (size_t) TURBO_MOST_GROUPS * 8 * plan.size->rows * TURBO_MANY_SIMDGROUPS / plan.size->parts;
    return sizeof(float) * parts * (size_t) (plan.size->dv + 2);
}

ggml_metal_pipeline_with_params turbo_attention_pipeline(ggml_metal_device_t dev, const ggml_tensor * op, const turbo_plan & plan) {
    return turbo_pipeline(dev, plan.kernel, turbo_kind(op->src[1]->type), turbo_kind(op->src[2]->type), plan.features);
}

// Simdgroups of a threadgroup: all rows if they fit, whole slices of heads in any case; 0 if that is more than the device
// can run of this kernel.
int turbo_simdgroups(const turbo_plan & plan, const ggml_metal_pipeline_with_params & pipeline) {
    const int most = ggml_metal_pipeline_max_theads_per_threadgroup(pipeline) / 32;
    if (plan.few) {
        return most >= TURBO_FEW_SIMDGROUPS ? TURBO_FEW_SIMDGROUPS : 0;
    }
    const int parts = plan.size->parts, wanted = (plan.rows + plan.each - 1) / plan.each * parts;
    return std::min({ wanted, most, TURBO_MANY_SIMDGROUPS }) / parts * parts;
}

bool turbo_supports_attention(ggml_metal_device_t dev, const ggml_tensor * op) {
    const turbo_plan plan = turbo_plan_of(op);
    if (!plan.size || ggml_nbytes(op) + turbo_work_bytes(plan) > ggml_metal_device_get_props(dev)->max_buffer_size) {
        return false;
    }
    const auto pipeline = turbo_attention_pipeline(dev, op, plan);
    return pipeline.pipeline && turbo_simdgroups(plan, pipeline) > 0 &&
           (plan.splits == 1 || turbo_pipeline(dev, "kernel_turbo_attention_join", -1, -1, plan.features).pipeline);
}

int turbo_encode_attention(ggml_metal_op_t ctx, ggml_tensor * op) {
    const ggml_tensor * q = op->src[0], * k = op->src[1], * v = op->src[2], * mask = op->src[3], * sinks = op->src[4];
    const turbo_plan plan     = turbo_plan_of(op);
    const auto       pipeline = turbo_attention_pipeline(ctx->dev, op, plan);
    GGML_ASSERT(plan.size && pipeline.pipeline);
    const float scale = turbo_parameter(op, 0), max_bias = turbo_parameter(op, 1), cap = turbo_parameter(op, 2);
    const int   heads = (int) q->ne[2];
    int heads_log2 = 1;
    while (2 * heads_log2 <= heads) {
        heads_log2 *= 2;
    }
    turbo_attention_args args = {
        (int32_t) q->ne[1], heads, plan.group, (int32_t) k->ne[1], plan.splits, (int32_t) k->ne[3], (int32_t) q->ne[3],
        mask ? (int32_t) mask->ne[2] : 1, mask ? (int32_t) mask->ne[3] : 1, heads_log2, cap != 0 ? scale / cap : scale, cap,
        powf(2.0f, -max_bias / (float) heads_log2), powf(2.0f, -max_bias / 2.0f / (float) heads_log2),
        q->nb[1], q->nb[2], q->nb[3], k->nb[1], k->nb[2], k->nb[3], v->nb[1], v->nb[2], v->nb[3],
        mask ? mask->nb[1] : 0, mask ? mask->nb[2] : 0, mask ? mask->nb[3] : 0,
    };
    const ggml_metal_buffer_id result = ggml_metal_get_buffer_id(op), sinks_id = ggml_metal_get_buffer_id(sinks ? sinks : q);
    ggml_metal_buffer_id work = result;
    work.offs += plan.splits > 1 ? ggml_nbytes(op) : 0;

    const int simdgroups = turbo_simdgroups(plan, pipeline);
    const int at_once    = plan.few ? plan.each : simdgroups / plan.size->parts * plan.each;
    turbo_set_pipeline(ctx, pipeline);
    ggml_metal_encoder_set_bytes(ctx->enc, &args, sizeof(args), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(q), 1);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(k), 2);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(v), 3);
    ggml_metal_encoder_set_buffer(ctx->enc, ggml_metal_get_buffer_id(mask ? mask : q), 4);
    ggml_metal_encoder_set_buffer(ctx->enc, sinks_id, 5);
    ggml_metal_encoder_set_buffer(ctx->enc, work, 6);
    ggml_metal_encoder_dispatch_threadgroups(
        ctx->enc, plan.splits, (int) k->ne[2] * ((plan.rows + at_once - 1) / at_once), (int) q->ne[3], 32 * simdgroups, 1, 1);
    if (plan.splits == 1) {
        return 1;
    }
    ggml_metal_op_concurrency_reset(ctx);
    turbo_join_args join = { args.queries, args.heads, (int32_t) v->ne[0], plan.splits };
    turbo_set_pipeline(ctx, turbo_pipeline(ctx->dev, "kernel_turbo_attention_join", -1, -1, plan.features));
    ggml_metal_encoder_set_bytes(ctx->enc, &join, sizeof(join), 0);
    ggml_metal_encoder_set_buffer(ctx->enc, work, 1);
    ggml_metal_encoder_set_buffer(ctx->enc, sinks_id, 2);
    ggml_metal_encoder_set_buffer(ctx->enc, result, 3);
    ggml_metal_encoder_dispatch_threadgroups(ctx->enc, (int) (q->ne[1] * q->ne[2] * q->ne[3]), 1, 1, 32, 1, 1);
    return 1;
}

// Encodes a node that is ours; 0 for any other.
int ggml_metal_turbo_encode(ggml_metal_op_t ctx, int idx) {
    ggml_tensor * op = ctx->node(idx);
    if (!ggml_metal_turbo_op(op)) {
        return 0;
    }
    return op->op == GGML_OP_FLASH_ATTN_EXT ? turbo_encode_attention(ctx, op) : turbo_encode_rows(ctx, op);
}

} // namespace

bool ggml_metal_turbo_op(const struct ggml_tensor * op) {
    bool found = turbo_type(op->type);
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        found = found || (op->src[i] && turbo_type(op->src[i]->type));
    }
    return found;
}

bool ggml_metal_turbo_supports_op(struct ggml_metal_device * dev, const struct ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_PERMUTE:
            return true;
        case GGML_OP_FLASH_ATTN_EXT:
            return turbo_supports_attention(dev, op);
        default: {
            const std::string kernel = turbo_rows_kernel(op);
            return !kernel.empty() && turbo_pipeline(dev, kernel.c_str()).pipeline;
        }
    }
}

size_t ggml_metal_turbo_alloc_size(const struct ggml_tensor * op) {
    return ggml_nbytes(op) + (op->op == GGML_OP_FLASH_ATTN_EXT ? turbo_work_bytes(turbo_plan_of(op)) : 0);
}
