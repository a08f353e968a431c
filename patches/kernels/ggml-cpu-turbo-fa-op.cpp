// GGML_OP_FLASH_ATTN_EXT as the attention of ggml-cpu-turbo-fa.h.

#include "ggml-cpu-turbo-fa.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu-turbo-fa-simd.h"
#include "ggml-cpu-turbo.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <cstring>

namespace {

constexpr size_t alignment = 64;

static_assert(QK8_0 == 32 && QK4_0 == 32, "blocks of upstream's types");

bool is_turbo(ggml_type type) {
    switch (type) {
        GGML_TURBO_CASES
            return true;
        default:
            return false;
    }
}

void levels_of(const block_q8_0 & block, int8_t * levels) {
    memcpy(levels, block.qs, sizeof(block.qs));
}

void levels_of(const block_q4_0 & block, int8_t * levels) {
    typedef uint8_t bytes __attribute__((vector_size(QK4_0 / 2)));
    const bytes     qs = turbo_simd::load<bytes>(block.qs);
    turbo_simd::store(levels, (qs & 15) - 8);
    turbo_simd::store(levels + sizeof(bytes), (qs >> 4) - 8);
}

// Upstream's types with a scale for 32 values.
template <typename B> void levels_row(const void * row, int8_t * levels, float * scale, int64_t n) {
    for (const B * b = (const B *) row; n > 0; n -= 32, levels += 32, ++b) {
        levels_of(*b, levels);
        *scale++ = turbo_simd::load_half(&b->d);
    }
}

template <typename B> void floats_row(const void * row, float * values, int64_t n) {
    for (const B * b = (const B *) row; n > 0; n -= 32, values += 32, ++b) {
        const float scale = turbo_simd::load_half(&b->d);
        int8_t      level[32];
        levels_of(*b, level);
        for (int i = 0; i < 32; i += turbo_simd::lanes) {
            turbo_simd::store(values + i, turbo_simd::load_floats(level + i) * scale);
        }
    }
}

// n is a multiple of 64, hence of the lanes.
void f16_floats(const void * row, float * values, int64_t n) {
    for (int64_t i = 0; i < n; i += turbo_simd::lanes) {
        turbo_simd::store(values + i, turbo_simd::load_halves((const uint16_t *) row + i));
    }
}

void f32_floats(const void * row, float * values, int64_t n) {
    memcpy(values, row, n * sizeof(float));
}

#define CODEC(ID, id, RAW) case GGML_TYPE_##ID: return { QK_TURBO, ggml_cpu_##id##_levels_row, ggml_cpu_##id##_dequantize_row };

ggml_turbo_codec codec_of(ggml_type type) {
    switch (type) {
        TURBO_TYPES(CODEC)
        case GGML_TYPE_Q8_0:   return { QK8_0, levels_row<block_q8_0>, floats_row<block_q8_0> };
        case GGML_TYPE_Q4_0:   return { QK4_0, levels_row<block_q4_0>, floats_row<block_q4_0> };
        case GGML_TYPE_F16:    return { 0, nullptr, f16_floats };
        case GGML_TYPE_F32:    return { 0, nullptr, f32_floats };
        default:               return { 0, nullptr, ggml_get_type_traits(type)->to_float };
    }
}

ggml_turbo_rows rows_of(const ggml_tensor * tensor) {
    return { (char *) tensor->data, tensor->nb[1], tensor->nb[2], tensor->nb[3] };
}

// The attention that an operation asks for; false if it is not one for us.
bool describe(const ggml_tensor * dst, ggml_turbo_attention * fa) {
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * v = dst->src[2], * mask = dst->src[3], * sinks = dst->src[4];
    if (!is_turbo(k->type) && !is_turbo(v->type)) {
        return false;
    }
    *fa            = {};
    fa->key_size   = k->ne[0];
    fa->value_size = v->ne[0];
    fa->n_q        = q->ne[1];
    fa->n_kv       = k->ne[1];
    fa->heads      = q->ne[2];
    fa->kv_heads   = k->ne[2];
    fa->batches    = q->ne[3];
    fa->kv_batches = k->ne[3];
    fa->k_codec    = codec_of(k->type);
    fa->v_codec    = codec_of(v->type);
    if (!fa->k_codec.floats || !fa->v_codec.floats || q->type != GGML_TYPE_F32 || dst->type != GGML_TYPE_F32 ||
        fa->key_size % 64 != 0 || fa->value_size % 64 != 0 || fa->n_q <= 0 || fa->n_kv <= 0 ||
        fa->kv_heads <= 0 || fa->kv_batches <= 0 || fa->heads % fa->kv_heads != 0 || fa->batches % fa->kv_batches != 0 ||
        v->ne[1] != fa->n_kv || v->ne[2] != fa->kv_heads || v->ne[3] != fa->kv_batches ||
        q->nb[0] != sizeof(float) || dst->nb[0] != sizeof(float) ||
        k->nb[0] != ggml_type_size(k->type) || v->nb[0] != ggml_type_size(v->type) ||
        (mask && (mask->type != GGML_TYPE_F16 || mask->nb[0] != sizeof(uint16_t))) ||
        (sinks && sinks->type != GGML_TYPE_F32)) {
        return false;
    }
    fa->q   = rows_of(q);
    fa->k   = rows_of(k);
    fa->v   = rows_of(v);
    fa->out = { (char *) dst->data, dst->nb[2], dst->nb[1], dst->nb[3] };  // heads before tokens
    if (mask) {
        fa->mask         = rows_of(mask);
        fa->mask_heads   = mask->ne[2];
        fa->mask_batches = mask->ne[3];
    }
    fa->sinks = sinks ? (const float *) sinks->data : nullptr;

    float parameters[3];
    memcpy(parameters, dst->op_params, sizeof(parameters));
    fa->scale    = parameters[0];
    fa->max_bias = parameters[1];
    fa->softcap  = parameters[2];
    return true;
}

size_t work_bytes(ggml_turbo_attention * fa, int threads) {
    ggml_turbo_attention_plan(fa, threads);
    return alignment + fa->scratch_bytes * threads + fa->partial_bytes;
}

}  // namespace

size_t ggml_cpu_turbo_flash_attn_ext_wsize(const ggml_tensor * dst, int n_tasks) {
    ggml_turbo_attention fa;
    return describe(dst, &fa) ? work_bytes(&fa, n_tasks) : 0;
}

bool ggml_cpu_turbo_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    ggml_turbo_attention fa;
    if (params->use_ref || !describe(dst, &fa) || work_bytes(&fa, params->nth) > params->wsize) {
        return false;
    }
    char * const  base     = (char *) (((uintptr_t) params->wdata + alignment - 1) / alignment * alignment);
    char * const  scratch  = base + fa.scratch_bytes * params->ith;
    char * const  partials = base + fa.scratch_bytes * params->nth;
    const int64_t jobs     = fa.items * fa.splits;

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);
    for (int64_t job = params->ith; job < jobs; job = ggml_threadpool_chunk_add(params->threadpool, 1)) {
        ggml_turbo_attention_job(&fa, job, scratch, partials);
    }
    if (fa.splits > 1) {
        ggml_barrier(params->threadpool);
        for (int64_t row = params->ith; row < fa.items * fa.tile_rows; row += params->nth) {
            ggml_turbo_attention_join(&fa, row, partials);
        }
    }
    return true;
}
