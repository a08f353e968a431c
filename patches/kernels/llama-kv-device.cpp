#include "llama-kv-device.h"

#include "llama-impl.h"

#include <memory>
#include <mutex>
#include <set>

static bool is_turbo(ggml_type type) {
    return type == GGML_TYPE_TURBO4 || type == GGML_TYPE_TURBO3 || type == GGML_TYPE_TURBO2;
}

// Rows of K and of V, and attention over both, of one token and of a prompt, for which a device may have another kernel;
// the operations are never computed.
static bool holds(ggml_backend_dev_t dev, ggml_type type_k, ggml_type type_v, int64_t head_k, int64_t head_v, bool v_trans) {
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
    const auto attends = [&](int64_t tokens, ggml_tensor * k, ggml_tensor * v) {
        ggml_tensor * q = ggml_new_tensor_3d(ctx.get(), GGML_TYPE_F32, head_k, tokens, 1);
        if (v_trans) {
            return ggml_backend_dev_supports_op(dev, ggml_mul_mat(ctx.get(), k, q));
        }
        return ggml_backend_dev_supports_op(dev, ggml_flash_attn_ext(ctx.get(), q, k, v, nullptr, 1.0f, 0.0f, 0.0f));
    };
    ggml_tensor * k = ggml_new_tensor_3d(ctx.get(), type_k, head_k, 64, 1);
    ggml_tensor * v = ggml_new_tensor_3d(ctx.get(), type_v, head_v, 64, 1);
    return attends(1, k, v) && attends(64, k, v);
}

bool llama_kv_device_holds(
        ggml_backend_dev_t dev, ggml_type type_k, ggml_type type_v, uint32_t n_embd_head_k, uint32_t n_embd_head_v, bool v_trans) {
    // A head of no whole blocks is refused elsewhere, by name
    if (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU || (!is_turbo(type_k) && !is_turbo(type_v)) ||
        n_embd_head_k % ggml_blck_size(type_k) != 0 || n_embd_head_v % ggml_blck_size(type_v) != 0 ||
        holds(dev, type_k, type_v, n_embd_head_k, n_embd_head_v, v_trans)) {
        return true;
    }
    static std::mutex                   mutex;
    static std::set<ggml_backend_dev_t> told;
    const std::lock_guard<std::mutex>   lock(mutex);
    if (told.insert(dev).second) {
        LLAMA_LOG_ERROR("llama_kv_cache: %s cannot keep K (%s) and V (%s) with heads of %u and %u: the cache stays on the CPU\n",
            ggml_backend_dev_name(dev), ggml_type_name(type_k), ggml_type_name(type_v), n_embd_head_k, n_embd_head_v);
    }
    return false;
}
