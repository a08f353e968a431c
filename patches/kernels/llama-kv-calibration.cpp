#include "llama-kv-calibration.h"

#include "llama-impl.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <map>
#include <stdexcept>

// -- the file, as toolchain/models/quality/calibration_file.py states it -----------------------------------------------------

namespace {
struct calibration_file {
    uint64_t digest;
    struct layer {
        uint32_t           n_head, n_embd_head;
        std::vector<float> offset, scale; // n_head x n_embd_head
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

static calibration_file parse(const std::string & bytes, uint64_t key) {
    reader in = { bytes };
    char   magic[4];
    in.take(magic, sizeof(magic));
    if (memcmp(magic, "TQKC", sizeof(magic)) != 0 || in.number<uint32_t>() != 1) {
        throw std::runtime_error("it is no calibration of keys, or of another version");
    }
    if (in.number<uint64_t>() != key) {
        throw std::runtime_error("it is of another model");
    }
    calibration_file found = {};
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
        for (std::vector<float> * values : { &layer.offset, &layer.scale }) {
            values->resize(size);
            in.take(values->data(), size * sizeof(float));
        }
    }
    found.digest = fnv1a(bytes.data(), in.at);
    if (in.number<uint64_t>() != found.digest) {
        throw std::runtime_error("it is damaged");
    }
    return found;
}

// -- the model --------------------------------------------------------------------------------------------------------

// False where the model lacks one of the weights that name it.
static bool key_of(const llama_kv_calibration_model & model, uint64_t & key) {
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

// Whether RoPE turns each pair of channels by itself although they are scaled: then both have the same scale.
static bool keeps_pairs(const std::vector<float> & scale, uint32_t n_embd_head, uint32_t n_rope, llama_rope_type type) {
    const uint32_t half = n_rope / 2, step = type == LLAMA_ROPE_TYPE_NORM ? 1 : half;
    for (size_t head = 0; type != LLAMA_ROPE_TYPE_NONE && head < scale.size(); head += n_embd_head) {
        for (uint32_t i = 0; i < half; i++) {
            const size_t first = head + (step == 1 ? 2 * i : i);
            if (scale[first] != scale[first + step]) {
                return false;
            }
        }
    }
    return true;
}

struct llama_kv_calibration::layer {
    const ggml_tensor *     k;
    ggml_context_ptr        ctx;
    ggml_backend_buffer_ptr buffer;
    // (size of a head, KV heads) and (size of a head, 1, KV heads); null where there is nothing to do
    ggml_tensor * offset, * scale, * inverse;

    // A tensor of f32, not allocated yet.
    ggml_tensor * add(const char * name, int il, std::initializer_list<int64_t> ne) {
        ggml_tensor * made = ggml_new_tensor(ctx.get(), GGML_TYPE_F32, (int) ne.size(), ne.begin());
        ggml_format_name(made, "cache_k_%s_l%d", name, il);
        return made;
    }
};

llama_kv_calibration::llama_kv_calibration()  = default;
llama_kv_calibration::~llama_kv_calibration() = default;

std::shared_ptr<const llama_kv_calibration> llama_kv_calibration::make(
        const llama_kv_calibration_model & model, const std::vector<llama_kv_calibration_layer> & layers, int64_t n_turn) {
    const char * folder = getenv("LLAMA_KV_CALIBRATION");
    uint64_t     key;
    if (!folder || !*folder || model.no_alloc) {
        return nullptr;
    }
    if (!key_of(model, key)) {
        LLAMA_LOG_WARN("%s: calibration of keys is off: the model lacks the norms that name it\n", __func__);
        return nullptr;
    }
    char name[32];
    snprintf(name, sizeof(name), "/%016llx.calibration", (unsigned long long) key);
    const std::string path = folder + std::string(name);
    std::ifstream     in(path, std::ios::binary);
    if (!in) {
        LLAMA_LOG_WARN("%s: calibration of keys is off: there is no %s\n", __func__, path.c_str());
        return nullptr;
    }
    const std::string bytes { std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>() };
    const auto refused = [&](const std::string & why) {
        return std::runtime_error("calibration of keys: " + path + ": " + why);
    };
    calibration_file file;
    try {
        file = parse(bytes, key);
    } catch (const std::exception & error) {
        throw refused(error.what());
    }
    if (model.latent) {
        throw refused("the model makes V of its keys");
    }
    std::shared_ptr<llama_kv_calibration> found(new llama_kv_calibration());
    size_t size = 0;
    bool   quantized = false;
    for (const llama_kv_calibration_layer & one : layers) {
        if (!one.k || !ggml_is_quantized(one.k->type)) {
            continue;
        }
        quantized = true;
        const auto it = file.layers.find(one.il);
        if (it == file.layers.end()) {
            continue;
        }
        const uint32_t n_embd_head = one.n_embd_head_k, n_head_kv = n_embd_head ? (uint32_t) (one.k->ne[0] / n_embd_head) : 0;
        std::vector<float> offset = it->second.offset, scale = it->second.scale;
        const auto refused_layer = [&](const char * why) {
            return refused("layer " + std::to_string(one.il) + " " + why);
        };
        if (it->second.n_embd_head != n_embd_head || it->second.n_head != n_head_kv) {
            throw refused_layer("has other heads");
        }
        const bool offsets = std::any_of(offset.begin(), offset.end(), [](float value) { return value != 0.0f; });
        const bool scales  = std::any_of(scale.begin(), scale.end(), [](float value) { return value != 1.0f; });
        if (offsets && model.soft_cap) {
            throw refused_layer("has an offset, but caps its scores, so softmax would feel it");
        }
        if (offsets && model.tensor(("blk." + std::to_string(one.il) + ".attn_sinks.weight").c_str())) {
            throw refused_layer("has an offset, but attention sinks, so softmax would feel it");
        }
        if (std::any_of(scale.begin(), scale.end(), [](float value) { return !(value > 0.0f) || !std::isfinite(value); }) ||
            std::any_of(offset.begin(), offset.end(), [](float value) { return !std::isfinite(value); })) {
            throw refused_layer("has values that are not finite, or scales that are not positive");
        }
        if (scales && (model.rope_type == LLAMA_ROPE_TYPE_VISION || one.n_rope > n_embd_head ||
                       !keeps_pairs(scale, n_embd_head, one.n_rope, model.rope_type))) {
            throw refused_layer("has scales that do not fit the pairs that RoPE turns");
        }
        if (!offsets && !scales) {
            continue;
        }
        std::vector<float> inverse(scale.size());
        for (size_t i = 0; i < scale.size(); i++) {
            inverse[i] = 1.0f / scale[i];
            offset[i] *= scale[i];
        }
        rotate(offset, (size_t) n_turn);
        layer made = { one.k, ggml_context_ptr(ggml_init({ 4 * ggml_tensor_overhead(), nullptr, true })), nullptr, nullptr, nullptr, nullptr };
        made.offset  = offsets ? made.add("offset", (int) one.il, { n_embd_head, n_head_kv }) : nullptr;
        made.scale   = scales ? made.add("scale", (int) one.il, { n_embd_head, n_head_kv }) : nullptr;
        made.inverse = scales ? made.add("inverse", (int) one.il, { n_embd_head, 1, n_head_kv }) : nullptr;
        made.buffer.reset(ggml_backend_alloc_ctx_tensors_from_buft(made.ctx.get(), ggml_backend_buffer_get_type(one.k->buffer)));
        if (!made.buffer) {
            throw refused("there is no memory for it");
        }
        const auto fill = [&](ggml_tensor * tensor, const std::vector<float> & values) {
            if (tensor) {
                ggml_backend_tensor_set(tensor, values.data(), 0, ggml_nbytes(tensor));
                size += ggml_nbytes(tensor);
            }
        };
        fill(made.offset, offset);
        fill(made.scale, scale);
        fill(made.inverse, inverse);
        found->layers.push_back(std::move(made));
    }
    if (found->layers.empty()) {
        if (quantized) { // layers that gain nothing are not in the file
            LLAMA_LOG_WARN("%s: calibration of keys is off: %s has nothing for the layers of this cache\n", __func__, path.c_str());
        }
        return nullptr;
    }
    found->digest = file.digest;
    LLAMA_LOG_INFO("%s: calibration of keys is on: %zu layers, %.1f KiB, fitted to %u tokens, from %s\n", __func__,
        found->layers.size(), (double) size / 1024.0, file.n_tokens, path.c_str());
    return found;
}

// -- what a graph does with them ---------------------------------------------------------------------------------------

const llama_kv_calibration::layer * llama_kv_calibration::of(const ggml_tensor * cached) const {
    cached = cached->view_src ? cached->view_src : cached;
    for (const layer & one : layers) {
        if (one.k == cached) {
            return &one;
        }
    }
    return nullptr;
}

uint32_t llama_kv_calibration::mark(uint32_t n_layer) const {
    return n_layer | ((uint32_t) (digest >> 44) | 1u) << 12; // not zero, and a model has less than 4096 layers
}

static const llama_kv_calibration::layer * layer_of(const llama_kv_calibration * calibration, const ggml_tensor * cached) {
    return calibration ? calibration->of(cached) : nullptr;
}

void llama_kv_calibration_scale(
        const llama_kv_calibration * calibration, ggml_context * ctx, ggml_tensor ** q, ggml_tensor ** k, const ggml_tensor * cached) {
    const auto * layer = layer_of(calibration, cached);
    if (!layer || !layer->scale) {
        return;
    }
    if (*k) {
        *k = ggml_mul(ctx, *k, layer->scale);
    }
    // heads i * n_group and following ask KV head i
    ggml_tensor * all     = ggml_is_contiguous(*q) ? *q : ggml_cont(ctx, *q);
    const int64_t n_head  = all->ne[1], n_head_kv = layer->inverse->ne[2];
    ggml_tensor * grouped = ggml_reshape_4d(ctx, all, all->ne[0], n_head / n_head_kv, n_head_kv, all->ne[2]);
    *q = ggml_reshape_3d(ctx, ggml_mul(ctx, grouped, layer->inverse), all->ne[0], n_head, all->ne[2]);
}

ggml_tensor * llama_kv_calibration_take(const llama_kv_calibration * calibration, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached) {
    const auto * layer = layer_of(calibration, cached);
    return layer && layer->offset ? ggml_sub(ctx, k, layer->offset) : k;
}

ggml_tensor * llama_kv_calibration_put_back(const llama_kv_calibration * calibration, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached) {
    const auto * layer = layer_of(calibration, cached);
    return layer && layer->offset ? ggml_add(ctx, k, layer->offset) : k;
}

uint32_t llama_kv_calibration_written(const llama_kv_calibration * calibration, uint32_t n_layer) {
    return calibration ? calibration->mark(n_layer) : n_layer;
}

uint32_t llama_kv_calibration_read(const llama_kv_calibration * calibration, uint32_t written, uint32_t n_layer) {
    if (written == llama_kv_calibration_written(calibration, n_layer)) {
        return n_layer;
    }
    if ((written & 0xfff) == n_layer) {
        LLAMA_LOG_ERROR("%s: the state was saved with another calibration of keys (LLAMA_KV_CALIBRATION)\n", __func__);
    }
    return written == n_layer ? ~n_layer : written; // a number that the caller refuses, also for a state without one
}

int64_t llama_kv_calibration_turn(const std::function<ggml_tensor *(ggml_context *)> & input) {
    const ggml_context_ptr ctx(ggml_init({ 4 * ggml_tensor_overhead(), nullptr, true }));
    const ggml_tensor *    matrix = input(ctx.get());
    return matrix ? matrix->ne[0] : 0;
}
