#include "llama-kv-cache-iswa.h"

#include "llama-graph.h"
#include "llama-model.h"

llama_kv_cache_iswa::llama_kv_cache_iswa(
        const llama_model & model, ggml_type type_k, ggml_type type_v, uint32_t kv_size,
        const llama_kv_cache::layer_filter_cb & filter) : hparams(model.hparams) {
    const auto filter_base = [&](uint32_t il) { return (!filter || filter(il)) && !hparams.is_swa(il); };
    const auto filter_swa  = [&](uint32_t il) { return (!filter || filter(il)) && hparams.is_swa(il); };

    kv_base = std::make_unique<llama_kv_cache>(model, type_k, type_v, kv_size, 0, filter_base);
    kv_swa  = std::make_unique<llama_kv_cache>(model, type_k, type_v, kv_size, hparams.n_swa, filter_swa);
}

std::vector<float> llama_kv_cache_iswa::attend(
        uint32_t il, uint32_t cell, std::vector<float> q, std::vector<float> k, std::vector<float> v) {
    const llama_kv_cache_iswa_context mctx(kv_base.get(), kv_swa.get(), cell);
    llm_graph_input_attn_kv_iswa      inp = { &mctx };
    return llm_graph_context(hparams).compute(inp, std::move(q), std::move(k), std::move(v), (int) il);
}

void llama_kv_cache_iswa::shift(uint32_t from, uint32_t n_discard, uint32_t n_past) {
    kv_base->shift(from, n_discard, n_past);
    kv_swa->shift(from, n_discard, n_past);
}

size_t llama_kv_cache_iswa::load(const std::string & state) {
    const size_t first = kv_base->load(state);
    return first ? kv_swa->load(state.substr(first)) : 0;
}

std::string llama_kv_cache_iswa::save(uint32_t n) const {
    return kv_base->save(n) + kv_swa->save(n);
}
