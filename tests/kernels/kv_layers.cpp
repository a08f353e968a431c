// Drives llama-kv-layers.cpp without llama.cpp: a command on each line of its input, an answer on each of its output.
//
//     read TEXT                   what is read, or "-" and the reason
//     layers N SWA K V            types of K and V of each of N layers; SWA: a cache of every layer, or "even" and "odd" ones

#include "llama-kv-layers.h"

#include <iostream>
#include <sstream>
#include <stdexcept>

static const struct {
    const char * name;
    int64_t      block;
} TYPES[] = { { "f32", 1 }, { "f16", 1 }, { "q8_0", 32 }, { "q4_0", 32 }, { "turbo4", 64 }, { "turbo3", 64 }, { "turbo2", 64 } };

extern "C" const char * ggml_type_name(ggml_type type) {
    return TYPES[type].name;
}

extern "C" bool ggml_is_quantized(ggml_type type) {
    return TYPES[type].block > 1;
}

extern "C" int64_t ggml_blck_size(ggml_type type) {
    return TYPES[type].block;
}

extern "C" size_t ggml_nbytes(const ggml_tensor *) {
    return 1 << 20;
}

static std::vector<ggml_type> known() {
    std::vector<ggml_type> types;
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        types.push_back((ggml_type) i);
    }
    return types;
}

// Makes one cache of the layers with il % 2 == rest, or of all.
static void make(uint32_t n, int rest, const llama_kv_type & k, const llama_kv_type & v, bool v_trans) {
    std::vector<ggml_tensor> tensors(2 * n);
    std::vector<llama_kv_made> made_k, made_v;
    const auto mine = [&](uint32_t il) { return rest < 0 || (int) (il % 2) == rest; };
    for (uint32_t il = 0; il < n; il++) {
        if (!mine(il)) {
            continue;
        }
        llama_kv_layers_count(n, mine);
        const auto here = llama_kv_layers_at({ il, 64, 64, true, v_trans }, k, v);
        std::cout << " " << il << "=" << ggml_type_name(here.k) << "/" << ggml_type_name(here.v);
        tensors[2 * il].type     = here.k;
        tensors[2 * il + 1].type = here.v;
        made_k.push_back({ il, &tensors[2 * il] });
        made_v.push_back({ il, &tensors[2 * il + 1] });
    }
    std::cout << " K:" << llama_kv_layers_names(made_k, k) << " V:" << llama_kv_layers_names(made_v, v)
              << " K>" << ggml_type_name(llama_kv_layers_made("K", made_k, k))
              << " V>" << ggml_type_name(llama_kv_layers_made("V", made_v, v));
}

static void layers(std::istream & words) {
    uint32_t n;
    std::string caches, text_k, text_v;
    words >> n >> caches >> text_k >> text_v;
    const llama_kv_type k = llama_kv_type_from_str(text_k, known()), v = llama_kv_type_from_str(text_v, known());
    const llama_kv_layers_scope scope(k, k.layers, v, v.layers);
    if (caches == "window") { // both count as one
        llama_kv_layers_count(n, [](uint32_t) { return true; });
        make(n, 0, k, v, false);
        make(n, 1, k, v, false);
    } else {
        make(n, caches == "even" ? 0 : -1, k, v, caches == "transposed");
        if (caches == "twice") {
            make(n, -1, k, v, false);
        }
    }
    std::cout << (llama_kv_layers_quantized(v.layers) ? " flash" : "");
}

int main() {
    for (std::string line; std::getline(std::cin, line); std::cout << std::endl) {
        std::istringstream words(line);
        std::string command, text;
        words >> command;
        try {
            if (command == "layers") {
                layers(words);
            } else {
                words >> text;
                std::cout << llama_kv_type_to_str(llama_kv_type_from_str(text, known()));
            }
        } catch (const std::runtime_error & error) {
            std::cout << "- " << error.what();
        }
    }
}
