// Two caches: of the layers that see all positions, and of those that see the last few.
#pragma once

#include "llama-kv-cache.h"

class llama_kv_cache_iswa : public llama_memory {
public:
    llama_kv_cache_iswa(const llama_model & model, ggml_type type_k, ggml_type type_v, uint32_t kv_size,
                        const llama_kv_cache::layer_filter_cb & filter);

    std::vector<float> attend(
        uint32_t il, uint32_t cell, std::vector<float> q, std::vector<float> k, std::vector<float> v) override;
    void               shift(uint32_t from, uint32_t n_discard, uint32_t n_past) override;
    std::string        save(uint32_t n) const override;
    size_t             load(const std::string & state) override;

private:
    const llama_hparams & hparams;
    std::unique_ptr<llama_kv_cache> kv_base, kv_swa;
};

// Both caches, for a position.
class llama_kv_cache_iswa_context {
public:
    llama_kv_cache_iswa_context(llama_kv_cache * base, llama_kv_cache * swa, uint32_t cell) : base(base, cell), swa(swa, cell) {}

    const llama_kv_cache_context * get_base() const { return &base; }
    const llama_kv_cache_context * get_swa() const { return &swa; }

private:
    llama_kv_cache_context base, swa;
};
