// A llama-architecture model and one sequence of tokens running through it.
#pragma once

#include "ggml.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#define LLAMA_API

struct llama_model;
struct llama_context;

// The pairs of channels that RoPE turns: neighbours here, always.
enum llama_rope_type {
    LLAMA_ROPE_TYPE_NONE   = -1,
    LLAMA_ROPE_TYPE_NORM   = 0,
    LLAMA_ROPE_TYPE_NEOX   = 2,
    LLAMA_ROPE_TYPE_VISION = 24,
};

// There is no other attention than flash attention here.
enum llama_flash_attn_type {
    LLAMA_FLASH_ATTN_TYPE_AUTO,
    LLAMA_FLASH_ATTN_TYPE_ENABLED,
};

struct llama_context_params {
    uint32_t              n_ctx; // cells; rounded up to a multiple of 256
    llama_flash_attn_type flash_attn_type;
    ggml_type             type_k;
    ggml_type             type_v;
};

llama_context_params llama_context_default_params();

std::shared_ptr<llama_model> llama_model_load_from_file(const std::string & path); // throws std::runtime_error

// The text's tokens: at each place the longest piece of the vocabulary that fits.
std::vector<int32_t> llama_tokenize(const llama_model & model, const std::string & text);
std::string          llama_token_to_piece(const llama_model & model, int32_t token);
bool                 llama_token_is_eog(const llama_model & model, int32_t token);

// Throws std::runtime_error where a type does not fit the heads.
std::shared_ptr<llama_context> llama_init_from_model(std::shared_ptr<llama_model> model, llama_context_params params);

uint32_t llama_n_ctx(const llama_context & ctx);

// Takes one token at position n_past and returns the likeliest next one.
int32_t llama_decode(llama_context & ctx, int32_t token, uint32_t n_past);

// Discards n_discard cells after the first n_keep, and moves the rest of the n_past cells down.
void llama_memory_shift(llama_context & ctx, uint32_t n_keep, uint32_t n_discard, uint32_t n_past);

// The n_past cells of the cache, as they are written to a file.
std::string llama_state_seq_get_data(const llama_context & ctx, uint32_t n_past);

// Puts cells back; their length, or 0 if the cache cannot hold them.
size_t llama_state_seq_set_data(llama_context & ctx, const std::string & state);
