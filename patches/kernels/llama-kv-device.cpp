#include "llama-kv-device.h"

#include "llama-impl.h"
#include "llama-kv-layers.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

static bool is_turbo(ggml_type type) {
    return type == GGML_TYPE_TURBO4 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO2;
}

// Rows of K and of V, and attention of one token over both; the operations are never computed.
static bool holds(ggml_backend_dev_t dev, ggml_type type_k, ggml_type type_v, int64_t head_k, int64_t head_v) {
    const ggml_init_params params = { 32 * ggml_tensor_overhead(), nullptr, true };
    const std::unique_ptr<ggml_context, void (*)(ggml_context *)> ctx(ggml_init(params), ggml_free);
    const auto writes = [&](ggml_type type, int64_t head) {
        ggml_tensor * rows    = ggml_new_tensor_2d(ctx.get(), type, head, 64);
        ggml_tensor * from    = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, head, 1);
        ggml_tensor * numbers = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_I64, 1, 1);
        return ggml_backend_dev_supports_op(dev, ggml_set_rows(ctx.get(), rows, from, numbers));
    };
    if ((is_turbo(type_k) && !writes(type_k, head_k)) || (is_turbo(type_v) && !writes(type_v, head_v))) {
        return false;
    }
    ggml_tensor * q = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, head_k, 1, 1);
    ggml_tensor * k = ggml_new_tensor_3d(ctx.get(), type_k, head_k, 64, 1);
    ggml_tensor * v = ggml_new_tensor_3d(ctx.get(), type_v, head_v, 64, 1);
    return ggml_backend_dev_supports_op(dev, ggml_flash_attn_ext(ctx.get(), q, k, v, nullptr, 1.0f, 0.0f, 0.0f));
}

bool llama_kv_device_holds(ggml_backend_dev_t dev, ggml_type type_k, ggml_type type_v, uint32_t n_embd_head_k, uint32_t n_embd_head_v) {
    if (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        return true;
    }
    static std::mutex                   mutex;
    static std::set<ggml_backend_dev_t> told;
    const std::vector<ggml_type> of_k = llama_kv_layers_types_k(type_k), of_v = llama_kv_layers_types_v(type_v);
    for (const ggml_type k : of_k) {
        for (const ggml_type v : of_v) {
            // A head of no whole blocks is refused elsewhere, by name
            if ((!is_turbo(k) && !is_turbo(v)) || n_embd_head_k % ggml_blck_size(k) != 0 || n_embd_head_v % ggml_blck_size(v) != 0 ||
                holds(dev, k, v, n_embd_head_k, n_embd_head_v)) {
                continue;
            }
            const std::lock_guard<std::mutex> lock(mutex);
            if (told.insert(dev).second) {
                LLAMA_LOG_ERROR("llama_kv_cache: %s cannot keep K (%s) and V (%s) with heads of %u and %u: the cache stays on the CPU\n",
                    ggml_backend_dev_name(dev), ggml_type_name(k), ggml_type_name(v), n_embd_head_k, n_embd_head_v);
            }
            return false;
        }
    }
    return true;
}
