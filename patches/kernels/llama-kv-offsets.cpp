#include "llama-kv-offsets.h"

#include "llama-impl.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>

// -- the file, as toolchain/models/quality/offsets.py states it ------------------------------------------------------

namespace {
struct offsets_file {
    uint64_t digest;
    struct layer {
        uint32_t           n_head, n_embd_head;
        std::vector<float> values;
    };
    std::map<uint32_t, layer> layers;
    uint32_t                  n_tokens;
};

// Numbers in the order of the file. Throws where it ends early.
struct reader {
    const std::string & bytes;
    size_t              at = 0;

    void take(void * to, size_t size) {
        if (size > bytes.size() - at) {
            throw std::runtime_error("it ends early");
        }
        memcpy(to, bytes.data() + at, size);
        at += size;
    }
    template <typename T> T number() {
        T value;
        take(&value, sizeof(value));
        return value;
    }
};
}

static uint64_t fnv1a(const void * data, size_t size, uint64_t found = 0xcbf29ce484222325u) {
    for (size_t i = 0; i < size; i++) {
        found = (found ^ ((const uint8_t *) data)[i]) * 0x100000001b3u;
    }
    return found;
}

static offsets_file parse(const std::string & bytes, uint64_t key) {
    reader in = { bytes };
    char   magic[4];
    in.take(magic, sizeof(magic));
    if (memcmp(magic, "TQKO", sizeof(magic)) != 0 || in.number<uint32_t>() != 1) {
        throw std::runtime_error("it is no file of offsets, or of another version");
    }
    if (in.number<uint64_t>() != key) {
        throw std::runtime_error("it is of another model");
    }
    offsets_file found = {};
    found.n_tokens = in.number<uint32_t>();
    for (uint32_t n = in.number<uint32_t>(); n > 0; n--) {
        const auto il = in.number<uint32_t>();
        auto & layer = found.layers[il];
        layer.n_head      = in.number<uint32_t>();
        layer.n_embd_head = in.number<uint32_t>();
        const uint64_t size = (uint64_t) layer.n_head * layer.n_embd_head;
        if (size > bytes.size() / sizeof(float)) {
            throw std::runtime_error("it ends early");
        }
        layer.values.resize(size);
        in.take(layer.values.data(), size * sizeof(float));
    }
    found.digest = fnv1a(bytes.data(), in.at);
    if (in.number<uint64_t>() != found.digest) {
        throw std::runtime_error("it is damaged");
    }
    return found;
}

// -- the model --------------------------------------------------------------------------------------------------------

// False where the model lacks one of the weights that name it.
static bool key_of(const llama_kv_offsets_model & model, uint64_t & key) {
    key = fnv1a(nullptr, 0);
    for (const char * name : { "output_norm.weight", "blk.0.attn_norm.weight" }) {
        const ggml_tensor * weight = model.tensor(name);
        if (!weight || weight->type != GGML_TYPE_F32) {
            return false;
        }
        std::vector<uint8_t> data(ggml_nbytes(weight));
        ggml_backend_tensor_get(weight, data.data(), 0, data.size());
        key = fnv1a(data.data(), data.size(), key);
    }
    return true;
}

// Each n values by the orthonormal Hadamard matrix, which is its own inverse.
static void rotate(std::vector<float> & values, size_t n) {
    for (size_t start = 0; n > 1 && start + n <= values.size(); start += n) {
        float * x = values.data() + start;
        for (size_t half = 1; half < n; half *= 2) {
            for (size_t i = 0; i < n; i++) {
                if (!(i & half)) {
                    const float a = x[i], b = x[i + half];
                    x[i]        = a + b;
                    x[i + half] = a - b;
                }
            }
        }
        for (size_t i = 0; i < n; i++) {
            x[i] /= sqrtf((float) n);
        }
    }
}

struct llama_kv_offsets::layer {
    const ggml_tensor *     k;
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;
    ggml_tensor *           values; // (size of a head, KV heads)
};

llama_kv_offsets::llama_kv_offsets()  = default;
llama_kv_offsets::~llama_kv_offsets() = default;

std::shared_ptr<const llama_kv_offsets> llama_kv_offsets::make(
        const llama_kv_offsets_model & model, const std::vector<llama_kv_offsets_layer> & layers, int64_t n_rot) {
    const char * folder = getenv("LLAMA_KV_OFFSETS");
    uint64_t     key;
    if (!folder || !*folder || model.no_alloc) {
        return nullptr;
    }
    if (!key_of(model, key)) {
        LLAMA_LOG_WARN("%s: offsets of keys are off: the model lacks the norms that name it\n", __func__);
        return nullptr;
    }
    char name[32];
    snprintf(name, sizeof(name), "/%016llx.offsets", (unsigned long long) key);
    const std::string path = folder + std::string(name);
    std::ifstream     in(path, std::ios::binary);
    if (!in) {
        LLAMA_LOG_WARN("%s: offsets of keys are off: there is no %s\n", __func__, path.c_str());
        return nullptr;
    }
    const std::string bytes { std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>() };
    const auto refused = [&](const std::string & why) {
        return std::runtime_error("offsets of keys: " + path + ": " + why);
    };
    offsets_file file;
    try {
        file = parse(bytes, key);
    } catch (const std::exception & error) {
        throw refused(error.what());
    }
    if (model.soft_cap || model.latent) {
        throw refused(model.latent ? "the model makes V of its keys" : "the model caps its scores, so softmax would feel them");
    }
    std::shared_ptr<llama_kv_offsets> found(new llama_kv_offsets());
    size_t size = 0;
    for (const llama_kv_offsets_layer & one : layers) {
        const auto it = file.layers.find(one.il);
        if (!one.k || !ggml_is_quantized(one.k->type) || it == file.layers.end()) {
            continue;
        }
        const uint32_t n_head_kv = one.n_embd_head_k ? (uint32_t) (one.k->ne[0] / one.n_embd_head_k) : 0;
        if (it->second.n_embd_head != one.n_embd_head_k || it->second.n_head != n_head_kv) {
            throw refused("layer " + std::to_string(one.il) + " has other heads");
        }
        if (model.tensor(("blk." + std::to_string(one.il) + ".attn_sinks.weight").c_str())) {
            throw refused("layer " + std::to_string(one.il) + " has attention sinks, so softmax would feel them");
        }
        std::vector<float> values = it->second.values;
        rotate(values, (size_t) n_rot);
        layer made = { one.k, ggml_context_ptr(ggml_init({ 2 * ggml_tensor_overhead(), nullptr, true })), nullptr, nullptr };
        made.values = ggml_new_tensor_2d(made.ctx.get(), GGML_TYPE_F32, one.n_embd_head_k, n_head_kv);
        ggml_format_name(made.values, "cache_k_offset_l%d", (int) one.il);
        made.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(made.ctx.get(), ggml_backend_buffer_get_type(one.k->buffer)));
        if (!made.buffer) {
            throw refused("there is no memory for them");
        }
        ggml_backend_tensor_set(made.values, values.data(), 0, ggml_nbytes(made.values));
        size += ggml_nbytes(made.values);
        found->layers.push_back(std::move(made));
    }
    if (found->layers.empty()) {
        return nullptr; // keys are not quantized
    }
    found->digest = file.digest;
    LLAMA_LOG_INFO("%s: offsets of keys are on: %zu layers, %.1f KiB, fitted to %u tokens, from %s\n", __func__,
        found->layers.size(), (double) size / 1024.0, file.n_tokens, path.c_str());
    return found;
}

// -- what a graph does with them ---------------------------------------------------------------------------------------

ggml_tensor * llama_kv_offsets::of(const ggml_tensor * cached) const {
    cached = cached->view_src ? cached->view_src : cached;
    for (const layer & one : layers) {
        if (one.k == cached) {
            return one.values;
        }
    }
    return nullptr;
}

uint32_t llama_kv_offsets::mark(uint32_t n_layer) const {
    return n_layer | ((uint32_t) (digest >> 44) | 1u) << 12; // not zero, and a model has less than 4096 layers
}

ggml_tensor * llama_kv_offsets_take(const llama_kv_offsets * offsets, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached) {
    ggml_tensor * values = offsets ? offsets->of(cached) : nullptr;
    return values ? ggml_sub(ctx, k, values) : k;
}

ggml_tensor * llama_kv_offsets_put_back(const llama_kv_offsets * offsets, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached) {
    ggml_tensor * values = offsets ? offsets->of(cached) : nullptr;
    return values ? ggml_add(ctx, k, values) : k;
}

uint32_t llama_kv_offsets_written(const llama_kv_offsets * offsets, uint32_t n_layer) {
    return offsets ? offsets->mark(n_layer) : n_layer;
}

uint32_t llama_kv_offsets_read(const llama_kv_offsets * offsets, uint32_t written, uint32_t n_layer) {
    if (written == llama_kv_offsets_written(offsets, n_layer)) {
        return n_layer;
    }
    if ((written & 0xfff) == n_layer) {
        LLAMA_LOG_ERROR("%s: the state was saved with other offsets of keys (LLAMA_KV_OFFSETS)\n", __func__);
    }
    return written == n_layer ? ~n_layer : written; // a number that the caller refuses, also for a state without offsets
}

int64_t llama_kv_offsets_rotation(const std::function<ggml_tensor *(ggml_context *)> & input) {
    const ggml_context_ptr ctx(ggml_init({ 4 * ggml_tensor_overhead(), nullptr, true }));
    const ggml_tensor *    matrix = input(ctx.get());
    return matrix ? matrix->ne[0] : 0;
}
