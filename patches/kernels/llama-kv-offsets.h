// What all keys of a head have in common is left out before they are stored.
//
// Softmax does not change when one number is added to all scores of a head, and so a constant c may be taken off all
// its keys: q*(k - c) = q*k - q*c. What remains has less energy, and a quantized type errs in proportion to that.
// `./inv quality.offsets` fits the constants; LLAMA_KV_OFFSETS names the folder of their files.
#pragma once

#include "llama.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

// A layer of a cache that was made.
struct llama_kv_offsets_layer {
    uint32_t      il, n_embd_head_k;
    ggml_tensor * k;
};

// What decides whether a model can have offsets, and which.
struct llama_kv_offsets_model {
    std::function<const ggml_tensor *(const char *)> tensor; // a weight by its name, or null
    bool soft_cap; // scores are capped, so they are no sum any more
    bool latent;   // V is made of the keys
    bool no_alloc; // tensors have no data; only their sizes count
};

class llama_kv_offsets {
  public:
    // The offsets of a cache's layers of quantized keys, from the model's file in the folder; null without the variable
    // or a file. Keys lie turned by a Hadamard matrix of n_rot values; 0: as they are. Throws std::runtime_error for a
    // damaged file, one of another model or layout, and for a model whose attention would change.
    static std::shared_ptr<const llama_kv_offsets> make(
        const llama_kv_offsets_model & model, const std::vector<llama_kv_offsets_layer> & layers, int64_t n_rot);

    // The offset of the keys in a tensor of a cache, or in a view of it; null for those that have none.
    ggml_tensor * of(const ggml_tensor * cached) const;

    // The number of layers as a saved state states it: with other offsets it is no number that a reader knows.
    uint32_t mark(uint32_t n_layer) const;

    ~llama_kv_offsets();

  private:
    struct layer;
    llama_kv_offsets();

    std::vector<layer> layers;
    uint64_t           digest = 0;
};

// Keys (size of a head, KV heads, ...) as `cached` holds them, from whole ones, and back; of a cache that may have no offsets.
ggml_tensor * llama_kv_offsets_take(const llama_kv_offsets * offsets, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached);
ggml_tensor * llama_kv_offsets_put_back(const llama_kv_offsets * offsets, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached);

// The number to write into a state for n_layer layers.
uint32_t llama_kv_offsets_written(const llama_kv_offsets * offsets, uint32_t n_layer);

// What a state states, as a plain number again if its cache had the same offsets; logs an error if not.
uint32_t llama_kv_offsets_read(const llama_kv_offsets * offsets, uint32_t written, uint32_t n_layer);

// Size of the Hadamard matrix that turns keys, of which `input` makes the tensor, or none.
int64_t llama_kv_offsets_rotation(const std::function<ggml_tensor *(ggml_context *)> & input);
