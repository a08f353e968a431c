#include "llama-graph.h"

llm_graph_context::llm_graph_context(const llama_hparams & hparams) : hparams(hparams) {
    owner.reset(ggml_init({ 0, nullptr, true }), ggml_free);
    ctx0 = owner.get();
}

ggml_tensor llm_graph_context::heads(std::vector<float> & values, int64_t n_head) const {
    return ggml_rows(GGML_TYPE_F32, hparams.n_embd_head, n_head, values.data());
}

static std::vector<float> values_of(const ggml_tensor * heads) {
    const float * first = (const float *) heads->data;
    return std::vector<float>(first, first + heads->ne[0] * heads->ne[1]);
}

std::vector<float> llm_graph_context::build_attn(
        llm_graph_input_attn_kv * inp,
        ggml_tensor * q_cur,
        ggml_tensor * k_cur,
        ggml_tensor * v_cur,
        int           il) const {
    return inp->mctx->attend((uint32_t) il, values_of(q_cur), values_of(k_cur), values_of(v_cur));
}

std::vector<float> llm_graph_context::build_attn(
        llm_graph_input_attn_kv_iswa * inp,
        ggml_tensor * q_cur,
        ggml_tensor * k_cur,
        ggml_tensor * v_cur,
        int           il) const {
    const auto * mctx_cur = hparams.is_swa((uint32_t) il) ? inp->mctx->get_swa() : inp->mctx->get_base();
    return mctx_cur->attend((uint32_t) il, values_of(q_cur), values_of(k_cur), values_of(v_cur));
}
