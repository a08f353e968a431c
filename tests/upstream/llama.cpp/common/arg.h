// The command line of llama-server.
#pragma once

#include "ggml.h"

#include <cstdint>
#include <string>

struct options {
    std::string model, host = "127.0.0.1";
    std::string slots;        // folder that caches are saved to
    uint32_t    port = 8080;
    uint32_t    cells = 4096; // of the context
    uint32_t    keep = 0;     // cells at its start that a shift leaves alone
    bool        shift = false;
    ggml_type   type_k = GGML_TYPE_F16, type_v = GGML_TYPE_F16;
};

// What the miniature knows of a command line; it passes over the rest. Throws std::runtime_error, which names the
// option that cannot be read.
options read_options(int count, char ** words);
