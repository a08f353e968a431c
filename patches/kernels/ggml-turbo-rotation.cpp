#include "ggml-turbo-rotation.h"

#include "ggml-alloc.h"
#include "ggml-backend-impl.h"
#include "ggml-turbo.h"

#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

bool ggml_turbo_turns(ggml_type type) {
    switch (type) {
        GGML_TURBO_CASES
            return true;
        default:
            return false;
    }
}

// Coordinate (row, column) of a Hadamard matrix in Sylvester's order is negative where row & column has an odd number of
// bits.
static std::vector<float> hadamard(int64_t n) {
    std::vector<float> values(n * n);
    for (int64_t i = 0; i < n * n; i++) {
        bool negative = false;
        for (int64_t bits = (i / n) & (i % n); bits; bits &= bits - 1) {
            negative = !negative;
        }
        values[i] = (negative ? -1.0f : 1.0f) / sqrtf((float) n);
    }
    return values;
}

// The matrix of n rows in the memory of the cache's device, where the products are computed then. It is made once and
// kept as long as the program runs. While Ollama only measures memory, a device gives none, and neither does it compute.
static ggml_tensor * matrix(const ggml_tensor * cache, int64_t n) {
    static std::mutex mutex;
    static std::map<std::tuple<ggml_backend_buffer_type_t, bool, int64_t>, ggml_tensor *> made;

    const ggml_tensor *              owner  = cache->view_src ? cache->view_src : cache;
    const ggml_backend_buffer_type_t memory = owner->buffer ? owner->buffer->buft : ggml_backend_cpu_buffer_type();
    const std::lock_guard<std::mutex> lock(mutex);
    ggml_tensor *& found = made[{ memory, memory->no_alloc, n }];
    if (!found) {
        const ggml_init_params params = { ggml_tensor_overhead(), nullptr, true };
        ggml_context * const   ctx    = ggml_init(params);
        found                         = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, n);
        ggml_format_name(found, "turbo_rotation_%d", (int) n);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(ctx, memory);
        GGML_ASSERT(buffer && "no memory for the rotation of the KV cache");
        ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        if (!memory->no_alloc) {
            ggml_backend_tensor_set(found, hadamard(n).data(), 0, ggml_nbytes(found));
        }
    }
    return found;
}

static ggml_tensor * turn(ggml_context * ctx, const ggml_tensor * cache, ggml_tensor * x, int64_t n) {
    GGML_ASSERT(x->ne[0] % n == 0 && "heads of a turbo cache are multiples of 64");
    ggml_tensor * rows = ggml_reshape_2d(ctx, ggml_is_contiguous(x) ? x : ggml_cont(ctx, x), n, ggml_nelements(x) / n);
    return ggml_reshape_4d(ctx, ggml_mul_mat(ctx, matrix(cache, n), rows), x->ne[0], x->ne[1], x->ne[2], x->ne[3]);
}

ggml_tensor * ggml_turbo_turn_k(ggml_context * ctx, const ggml_tensor * cache, ggml_tensor * x) {
    if (!ggml_turbo_turns(cache->type)) {
        return x;
    }
    int64_t n = 64;
    while (x->ne[0] % (2 * n) == 0) {
        n *= 2;
    }
    return turn(ctx, cache, x, n);
}

ggml_tensor * ggml_turbo_turn_v(ggml_context * ctx, const ggml_tensor * cache, ggml_tensor * x) {
    return ggml_turbo_turns(cache->type) ? turn(ctx, cache, x, 64) : x;
}
