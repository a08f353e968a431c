// A model's weights and its vocabulary.
#pragma once

#include "llama.h"
#include "llama-hparams.h"
#include "llama-kv-cache.h"

#include <unordered_map>

using floats = std::vector<float>;

// A block without attention has none of its weights.
struct block_weights {
    floats attention_norm, query, key, value, attended, feed_norm, gate, up, down;
};

struct llama_model {
    llama_hparams              hparams;
    floats                     tok_embd, output_norm, output;
    std::vector<block_weights> blocks;
    std::unordered_map<std::string, floats>      vectors; // by name, and as tensors
    std::unordered_map<std::string, ggml_tensor> tensors;
    std::vector<std::string>   pieces; // of the vocabulary, by token
    std::unordered_map<std::string, int32_t> ids;
    size_t                     longest = 1;
    int32_t                    bos = -1, eos = -1, unknown = 0;
    std::string                space; // what stands for a space in the vocabulary

    // A vector among the weights by its name in the file, or null.
    const ggml_tensor * get_tensor(const char * name) const;

    llama_memory * create_memory(const llama_context_params & params) const; // throws std::runtime_error
};
