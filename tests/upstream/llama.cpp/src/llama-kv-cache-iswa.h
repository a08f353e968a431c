// Two caches: of the layers that see all positions, and of those that see the last few.
#pragma once

#include "llama-kv-cache.h"

class llama_kv_cache_iswa : public llama_memory {
public:
    llama_kv_cache_iswa(const llama_model & model, ggml_type type_k, ggml_type type_v, uint32_t kv_size,
                        const llama_kv_cache::layer_filter_cb & filter);

    void               store(uint32_t il, uint32_t cell, std::vector<float> k, std::vector<float> v) override;
    std::vector<float> attend(uint32_t il, uint32_t n, std::vector<float> q) const override;
    void               shift(uint32_t from, uint32_t n_discard, uint32_t n_past) override;
    std::string        save(uint32_t n) const override;
    size_t             load(const std::string & state) override;

private:
    const llama_hparams & hparams;
    std::unique_ptr<llama_kv_cache> kv_base, kv_swa;

    llama_kv_cache & of(uint32_t il) const { return hparams.is_swa(il) ? *kv_swa : *kv_base; }
};
