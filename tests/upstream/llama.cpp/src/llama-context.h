// A model with a memory of the tokens that it has seen.
#pragma once

#include "llama-model.h"

struct llama_context {
    llama_context(std::shared_ptr<llama_model> model, llama_context_params params);

    std::shared_ptr<llama_model>  model;
    uint32_t                      n_ctx;
    std::unique_ptr<llama_memory> memory;
};
