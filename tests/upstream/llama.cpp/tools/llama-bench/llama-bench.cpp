// llama-bench: tokens per second with given cache types.

#include "llama.h"

#include <chrono>
#include <stdexcept>

static ggml_type ggml_type_from_name(const std::string & s) {
    if (s == "f16") {
        return GGML_TYPE_F16;
    }
    if (s == "q8_0") {
        return GGML_TYPE_Q8_0;
    }
    if (s == "q4_0") {
        return GGML_TYPE_Q4_0;
    }

    return GGML_TYPE_COUNT;
}

int main(int argc, char ** argv) {
    std::string path;
    ggml_type type_k = GGML_TYPE_F16, type_v = GGML_TYPE_F16;
    uint32_t n_gen = 128;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string arg = argv[i], value = argv[i + 1];
        if (arg == "-m" || arg == "--model") {
            path = value;
        } else if (arg == "-ctk" || arg == "--cache-type-k") {
            type_k = ggml_type_from_name(value);
        } else if (arg == "-ctv" || arg == "--cache-type-v") {
            type_v = ggml_type_from_name(value);
        } else if (arg == "-n" || arg == "--n-gen") {
            n_gen = (uint32_t) strtoul(value.c_str(), nullptr, 10);
        } else {
            type_k = GGML_TYPE_COUNT;
        }
        if (type_k == GGML_TYPE_COUNT || type_v == GGML_TYPE_COUNT) {
            fprintf(stderr, "error: invalid parameter for argument: %s\n", arg.c_str());
            return 1;
        }
    }
    try {
        auto ctx = llama_init_from_model(llama_model_load_from_file(path), n_gen, type_k, type_v);
        const auto start = std::chrono::steady_clock::now();
        int32_t token = 0;
        for (uint32_t i = 0; i < n_gen; i++) {
            token = llama_decode(*ctx, token, i);
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        printf("| type_k | type_v | test | t/s |\n|---|---|---|---|\n| %s | %s | tg%u | %.2f |\n",
            ggml_type_name(type_k), ggml_type_name(type_v), n_gen, n_gen / seconds);
    } catch (const std::exception & error) {
        fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
