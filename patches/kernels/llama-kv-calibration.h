// Keys are stored as a quantized type holds them best, and attention is the same.
//
// A constant c may be taken off all keys of a head: q*(k - c) is q*k less one number, which softmax does not feel. And a
// pair of channels that RoPE turns may be multiplied by a number s, if the queries' pair is divided by it. What is
// stored is s*(k - c). `./inv quality.calibrate` fits both; LLAMA_KV_CALIBRATION names the folder of its files.
#pragma once

#include "llama.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

// A layer of a cache that was made.
struct llama_kv_calibration_layer {
    uint32_t      il, n_embd_head_k;
    uint32_t      n_rope; // channels that RoPE turns, the first of a head
    ggml_tensor * k;
};

// What decides whether a model can have a calibration, and which.
struct llama_kv_calibration_model {
    std::function<const ggml_tensor *(const char *)> tensor; // a weight by its name, or null
    llama_rope_type rope_type;
    bool soft_cap; // scores are capped, so they are no sum any more
    bool latent;   // V is made of the keys
    bool no_alloc; // tensors have no data; only their sizes count
};

class llama_kv_calibration {
  public:
    // What is done to a cache's layers of quantized keys, from the model's file in the folder; null without the variable
    // or a file. Keys lie turned by a Hadamard matrix of n_turn values; 0: as they are. Throws std::runtime_error for a
    // damaged file, one of another model or layout, and for a model whose attention would change.
    static std::shared_ptr<const llama_kv_calibration> make(
        const llama_kv_calibration_model & model, const std::vector<llama_kv_calibration_layer> & layers, int64_t n_turn);

    struct layer;

    // What is done to the keys in a tensor of a cache, or in a view of it; null for those that are stored as they are.
    const layer * of(const ggml_tensor * cached) const;

    // The number of layers as a saved state states it: with another calibration it is no number that a reader knows.
    uint32_t mark(uint32_t n_layer) const;

    ~llama_kv_calibration();

  private:
    llama_kv_calibration();

    std::vector<layer> layers;
    uint64_t           digest = 0;
};

// All of these are of a cache that may have no calibration.

// Multiplies the channels of keys (size of a head, KV heads, ...) and divides those of queries (size of a head, heads,
// ...), both as RoPE leaves them. k may be null: the keys of an earlier layer are asked.
void llama_kv_calibration_scale(
    const llama_kv_calibration * calibration, ggml_context * ctx, ggml_tensor ** q, ggml_tensor ** k, const ggml_tensor * cached);

// Scaled and turned keys (size of a head, KV heads, ...) as `cached` holds them, and back.
ggml_tensor * llama_kv_calibration_take(const llama_kv_calibration * calibration, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached);
ggml_tensor * llama_kv_calibration_put_back(const llama_kv_calibration * calibration, ggml_context * ctx, ggml_tensor * k, const ggml_tensor * cached);

// The number to write into a state for n_layer layers.
uint32_t llama_kv_calibration_written(const llama_kv_calibration * calibration, uint32_t n_layer);

// What a state states, as a plain number again if its cache had the same calibration; logs an error if not.
uint32_t llama_kv_calibration_read(const llama_kv_calibration * calibration, uint32_t written, uint32_t n_layer);

// Size of the Hadamard matrix that turns keys, of which `input` makes the tensor, or none.
int64_t llama_kv_calibration_turn(const std::function<ggml_tensor *(ggml_context *)> & input);
