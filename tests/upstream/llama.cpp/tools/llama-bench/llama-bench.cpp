// llama-bench: tokens per second with given cache types.

#include "llama.h"

#include <chrono>
#include <map>
#include <stdexcept>

static ggml_type ggml_type_from_name(const std::string & s) {
    for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0 }) {
        if (ggml_type_name(type) == s) {
            return type;
        }
    }
    return GGML_TYPE_COUNT;
}

// The values of the options that there are, by their short names. Throws std::runtime_error.
static std::map<std::string, std::string> read_options(int count, char ** words) {
    std::map<std::string, std::string> values = { { "-m", "" }, { "-ctk", "f16" }, { "-ctv", "f16" }, { "-n", "128" } };
    for (int at = 1; at < count; at += 2) {
        if (!values.count(words[at]) || at + 1 == count) {
            throw std::runtime_error(std::string(words[at]) + " is no option, or has no value");
        }
        values[words[at]] = words[at + 1];
    }
    return values;
}

static ggml_type cache_type(const std::string & name) {
    const ggml_type type = ggml_type_from_name(name);
    return type == GGML_TYPE_COUNT ? throw std::runtime_error(name + " is no type for a cache") : type;
}

static void bench(std::map<std::string, std::string> options) {
    const ggml_type type_k = cache_type(options["-ctk"]), type_v = cache_type(options["-ctv"]);
    const uint32_t tokens = (uint32_t) std::stoul(options["-n"]);
    llama_context_params params = llama_context_default_params();
    params.n_ctx  = tokens;
    params.type_k = type_k;
    params.type_v = type_v;
    const auto context = llama_init_from_model(llama_model_load_from_file(options["-m"]), params);
    const auto start = std::chrono::steady_clock::now();
    int32_t token = 0;
    for (uint32_t done = 0; done < tokens; done++) {
        token = llama_decode(*context, token, done);
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    printf("K %s, V %s: %.2f tokens per second\n", ggml_type_name(type_k), ggml_type_name(type_v), tokens / taken.count());
}

int main(int count, char ** words) {
    try {
        bench(read_options(count, words));
    } catch (const std::exception & reason) {
        fprintf(stderr, "error: %s\n", reason.what());
        return 1;
    }
}
