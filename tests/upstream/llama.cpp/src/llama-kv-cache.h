// The cache of keys and values, in any type that has traits.
#pragma once

#include "ggml-alloc.h"
#include "llama-hparams.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

// Turns each pair of x (one head of n values) by the angle of position pos; pos may be negative.
void llama_rope(float * x, int64_t n_rot, float freq_base, int32_t pos);

// What a context remembers of each layer that attends.
class llama_memory {
public:
    virtual ~llama_memory() = default;

    // Keys and values of all KV heads at one position.
    virtual void store(uint32_t il, uint32_t cell, std::vector<float> k, std::vector<float> v) = 0;

    // Attention of all query heads over cells [0, n): the heads' outputs, one after the other.
    virtual std::vector<float> attend(uint32_t il, uint32_t n, std::vector<float> q) const = 0;

    // Forgets cells [from, from + n_discard) and moves those up to n_past down, their keys to their new position.
    virtual void shift(uint32_t from, uint32_t n_discard, uint32_t n_past) = 0;

    // The first n cells: the position of each, then the rows of K of every layer, then those of V.
    virtual std::string save(uint32_t n) const = 0;
};

class llama_kv_cache : public llama_memory {
public:
    using layer_filter_cb = std::function<bool(uint32_t)>;

    // Serves the layers that the filter takes, if there is one; they see n_swa positions, or with 0 all of them. Rotates,
    // then converts to the types.
    llama_kv_cache(const llama_hparams & hparams, ggml_type type_k, ggml_type type_v, uint32_t kv_size, uint32_t n_swa,
                   const layer_filter_cb & filter);

    void               store(uint32_t il, uint32_t cell, std::vector<float> k, std::vector<float> v) override;
    std::vector<float> attend(uint32_t il, uint32_t n, std::vector<float> q) const override;
    void               shift(uint32_t from, uint32_t n_discard, uint32_t n_past) override;
    std::string        save(uint32_t n) const override;

private:
    struct kv_layer {
        uint32_t      il;
        ggml_tensor * k;
        ggml_tensor * v;
    };

    const kv_layer & layer(uint32_t il) const;
    uint32_t         get_size() const;
    void             build_graph_shift(uint32_t from, uint32_t n_discard, uint32_t n_past);
    ggml_tensor *    build_rope_shift(ggml_context * ctx, const ggml_tensor * cur, ggml_tensor * keys, int32_t shift, ggml_tensor * rot) const;

    const llama_hparams & hparams;
    uint32_t n_swa;
    const uint32_t n_stream = 1;
    int64_t  rot_k = 0, rot_v = 0; // size of the Hadamard transform, 0 where there is none
    std::vector<kv_layer> layers;
    std::shared_ptr<ggml_context>        ctx; // of the layers' tensors
    std::shared_ptr<ggml_backend_buffer> buffer;
};
