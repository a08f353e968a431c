#include "ggml-cpu-impl.h"

#include "ggml-quants.h"
#include "quants.h"

// A row of the type is multiplied with one of `other`; the reference conversions are fast enough.
#define ENTRY(id, name, other) \
    [id] = { .from_float = ggml_encode_##name, .vec_dot = ggml_dot_##name, .vec_dot_type = other, .nrows = 1 }

static const struct ggml_type_traits_cpu type_traits_cpu[GGML_TYPE_COUNT] = {
    ENTRY(GGML_TYPE_F32, f32, GGML_TYPE_F32),
    ENTRY(GGML_TYPE_F16, f16, GGML_TYPE_F16),
    ENTRY(GGML_TYPE_Q4_0, q4_0, GGML_TYPE_Q8_0),
    ENTRY(GGML_TYPE_Q8_0, q8_0, GGML_TYPE_Q8_0),
};

const struct ggml_type_traits_cpu * ggml_get_type_traits_cpu(enum ggml_type type) {
    GGML_ASSERT((unsigned) type < GGML_TYPE_COUNT);
    return type_traits_cpu + type;
}

struct ggml_cplan ggml_graph_plan(const struct ggml_tensor * node, int n_tasks) {
    size_t cur = 0;
    switch (node->op) {
        case GGML_OP_FLASH_ATTN_EXT: {
            // a query as its keys want it, a weight for each key, and a row of values
            cur += ggml_row_size(GGML_TYPE_F32, node->src[0]->ne[0] + node->src[1]->ne[1] + node->src[2]->ne[0]);
            cur *= (size_t) n_tasks;
        } break;
        default: {
            cur += ggml_row_size(GGML_TYPE_F32, node->ne[0]) * (size_t) n_tasks;
        } break;
    }
    return (struct ggml_cplan) { .work_size = cur };
}

void ggml_barrier(struct ggml_threadpool * pool) {
    (void) pool;
}

void ggml_threadpool_chunk_set(struct ggml_threadpool * pool, int value) {
    pool->chunk = value;
}

int ggml_threadpool_chunk_add(struct ggml_threadpool * pool, int value) {
    pool->chunk += value;
    return pool->chunk - value;
}
