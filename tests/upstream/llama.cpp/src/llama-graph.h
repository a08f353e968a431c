// The attention of a layer, from what RoPE made of its queries and keys.
#pragma once

#include "llama-kv-cache-iswa.h"

// What the graph of a position is given.
struct llm_graph_input_attn_kv {
    const llama_kv_cache_context * mctx;
};
struct llm_graph_input_attn_kv_iswa {
    const llama_kv_cache_iswa_context * mctx;
};

class llm_graph_context {
public:
    explicit llm_graph_context(const llama_hparams & hparams);

    // Stores keys and values of a position, all heads one after the other, and gives what its queries find.
    template <typename T>
    std::vector<float> compute(T & inp, std::vector<float> q, std::vector<float> k, std::vector<float> v, int il) const {
        ggml_tensor q_cur = heads(q, hparams.n_head), k_cur = heads(k, hparams.n_head_kv), v_cur = heads(v, hparams.n_head_kv);
        return build_attn(&inp, &q_cur, &k_cur, &v_cur, il);
    }

private:
    // Tensors are (size of a head, heads); there is one for each kind of cache.
    std::vector<float> build_attn(
        llm_graph_input_attn_kv * inp, ggml_tensor * q_cur, ggml_tensor * k_cur, ggml_tensor * v_cur, int il) const;
    std::vector<float> build_attn(
        llm_graph_input_attn_kv_iswa * inp, ggml_tensor * q_cur, ggml_tensor * k_cur, ggml_tensor * v_cur, int il) const;

    ggml_tensor heads(std::vector<float> & values, int64_t n_head) const;

    const llama_hparams &         hparams;
    std::shared_ptr<ggml_context> owner;
    ggml_context *                ctx0;
};
