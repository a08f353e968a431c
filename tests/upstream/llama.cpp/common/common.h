// What the programs are told on their command lines.
#pragma once

#include "llama-cpp.h"

#include <cstdint>
#include <string>

// A draft model would speed up the other one; it is read from the command line, and that is all.
struct common_params_speculative {
    ggml_type cache_type_k = GGML_TYPE_F16;
    ggml_type cache_type_v = GGML_TYPE_F16;
};

struct common_params {
    std::string model, host = "127.0.0.1";
    std::string slots;        // folder that caches are saved to
    uint32_t    port = 8080;
    uint32_t    cells = 4096; // of the context
    uint32_t    keep = 0;     // cells at its start that a shift leaves alone
    bool        shift = false;
    ggml_type   cache_type_k = GGML_TYPE_F16;
    ggml_type   cache_type_v = GGML_TYPE_F16;
    common_params_speculative speculative;
};

struct llama_context_params common_context_params_to_llama(const common_params & params);
