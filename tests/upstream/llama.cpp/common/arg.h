// The command line that all tools share.
#pragma once

#include "ggml.h"

#include <cstdint>
#include <string>

struct common_params {
    std::string model;
    std::string host = "127.0.0.1";
    int         port = 8080;
    uint32_t    n_ctx = 4096;
    uint32_t    n_keep = 0;
    uint32_t    n_predict = 32;
    bool        ctx_shift = false;
    ggml_type   cache_type_k = GGML_TYPE_F16;
    ggml_type   cache_type_v = GGML_TYPE_F16;
};

// Reads the options that the miniature knows and passes over the others. Says why on stderr and returns false
// where one cannot be read.
bool common_params_parse(int argc, char ** argv, common_params & params);
