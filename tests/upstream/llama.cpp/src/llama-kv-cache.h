// The cache of keys and values, in any type that has traits.
#pragma once

#include "ggml.h"

#include <cstdint>
#include <string>
#include <vector>

struct llama_hparams {
    int64_t n_ctx_train, n_embd, n_layer, n_head, n_head_kv, n_embd_head, n_rot, n_ff, n_vocab;
    float   rms_eps, freq_base;
};

// Turns each pair of x (one head of n values) by the angle of position pos; pos may be negative.
void llama_rope(float * x, int64_t n_rot, float freq_base, int32_t pos);

class llama_kv_cache {
public:
    llama_kv_cache(const llama_hparams & hparams, ggml_type type_k, ggml_type type_v, uint32_t kv_size); // throws std::bad_alloc

    // Keys and values of all KV heads at one position; rotated, then converted to the cache's types.
    void store(int64_t layer, uint32_t cell, std::vector<float> k, std::vector<float> v);

    // Attention of all query heads over cells [0, n): the heads' outputs, one after the other.
    std::vector<float> attend(int64_t layer, uint32_t n, std::vector<float> q) const;

    // Forgets cells [from, from + n_discard) and moves those up to n_past down, their keys to their new position.
    void shift(uint32_t from, uint32_t n_discard, uint32_t n_past);

    // The first n cells: the position of each, then the rows of K of every layer, then those of V.
    std::string save(uint32_t n) const;

private:
    llama_hparams hparams;
    ggml_type     type_k, type_v;
    size_t        row_k, row_v;          // bytes of one cell in one layer
    int64_t       rot_k = 0, rot_v = 0;  // size of the Hadamard transform, 0 where there is none
    std::vector<std::vector<uint8_t>> k, v; // one for each layer
};
