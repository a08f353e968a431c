// The cache of keys and values, in any type that has traits.
#pragma once

#include "ggml-alloc.h"
#include "llama-hparams.h"
#include "llama-memory.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

// Turns each pair of x (one head of n values) by the angle of position pos; pos may be negative.
void llama_rope(float * x, int64_t n_rot, float freq_base, int32_t pos);

struct llama_model;

class llama_kv_cache : public llama_memory {
public:
    using layer_filter_cb = std::function<bool(uint32_t)>;

    // Serves the layers that the filter takes, if there is one; they see n_swa positions, or with 0 all of them. Rotates,
    // then converts to the types.
    llama_kv_cache(const llama_model & model, ggml_type type_k, ggml_type type_v, uint32_t kv_size, uint32_t n_swa,
                   const layer_filter_cb & filter);

    std::vector<float> attend(
        uint32_t il, uint32_t cell, std::vector<float> q, std::vector<float> k, std::vector<float> v) override;
    void               shift(uint32_t from, uint32_t n_discard, uint32_t n_past) override;
    std::string        save(uint32_t n) const override;
    size_t             load(const std::string & state) override;

    // Writes rotated keys and values of one position (size of a head, KV heads); and attends over cells [0, n).
    void               store(uint32_t il, uint32_t cell, std::vector<float> k, std::vector<float> v);
    std::vector<float> attend(uint32_t il, uint32_t n, std::vector<float> q) const;

    uint32_t           get_size() const;
    ggml_tensor *      get_k(uint32_t il) const;

private:
    struct kv_layer {
        uint32_t      il;
        ggml_tensor * k;
        ggml_tensor * v;
    };

    const kv_layer & layer(uint32_t il) const;
    ggml_tensor *    build_input_k_rot(ggml_context * ctx) const; // the matrix that turns keys, without data, or null
    ggml_tensor *    cpy_k(ggml_context * ctx, ggml_tensor * k_cur, uint32_t cell, uint32_t il) const;
    void             state_write_data(llama_io_write_i & io, uint32_t n) const;
    bool             state_read_data(llama_io_read_i & io, uint32_t n) const;
    void             build_graph_shift(uint32_t from, uint32_t n_discard, uint32_t n_past);
    ggml_tensor *    build_rope_shift(ggml_context * ctx, ggml_tensor * cur, int32_t shift, ggml_tensor * rot) const;

    const llama_hparams & hparams;
    uint32_t n_swa;
    const uint32_t n_stream = 1; // one cache for all sequences
    int     debug = 0; // how much is logged of what happens, which is nothing here
    int64_t  rot_k = 0, rot_v = 0; // size of the Hadamard transform, 0 where there is none
    std::vector<kv_layer> layers;
    std::shared_ptr<ggml_context>        ctx; // of the layers' tensors
    std::shared_ptr<ggml_backend_buffer> buffer;
};

// A cache, for a position.
class llama_kv_cache_context {
public:
    llama_kv_cache_context(llama_kv_cache * kv, uint32_t cell) : kv(kv), cell(cell) {}

    uint32_t get_n_kv() const; // cells in use

    // The keys of a layer.
    ggml_tensor * get_k(ggml_context * ctx, int32_t il) const {
        (void) ctx;
        return kv->get_k((uint32_t) il);
    }

    std::vector<float> attend(uint32_t il, std::vector<float> q, std::vector<float> k, std::vector<float> v) const {
        kv->store(il, cell, std::move(k), std::move(v));
        return kv->attend(il, get_n_kv(), std::move(q));
    }

private:
    llama_kv_cache * kv;
    uint32_t         cell;
};
