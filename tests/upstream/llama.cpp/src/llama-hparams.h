// The sizes of a model.
#pragma once

#include "llama.h"

#include <cstdint>
#include <vector>

struct llama_hparams {
    uint32_t n_layer_all;
    int64_t  n_ctx_train, n_embd, n_head, n_head_kv, n_embd_head, n_rot_full, n_ff, n_vocab;
    uint32_t n_swa = 0;      // positions that a layer with a window sees; 0: no layer has one
    uint32_t swa_period = 1; // every so-manieth layer has none
    llama_rope_type rope_type = LLAMA_ROPE_TYPE_NORM;
    float    rms_eps, freq_base;
    bool     attn_soft_cap = false, no_alloc = false; // neither is to be had here
    std::vector<bool> attends; // layers that have attention at all

    bool has_kv(uint32_t il) const { return attends[il]; }
    bool is_mla() const { return false; }
    bool is_swa(uint32_t il) const { return n_swa > 0 && il % swa_period < swa_period - 1; }

    uint32_t n_rot(uint32_t = 0) const { return (uint32_t) n_rot_full; }
    uint32_t n_embd_head_k(uint32_t = 0) const { return (uint32_t) n_embd_head; }
    uint32_t n_embd_head_v(uint32_t = 0) const { return (uint32_t) n_embd_head; }
};
