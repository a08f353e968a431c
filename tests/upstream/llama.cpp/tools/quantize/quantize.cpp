// llama-quantize: reads a model and writes it again. The miniature knows one type, COPY, which changes nothing.

#include "llama.h"

#include <cstring>
#include <fstream>
#include <stdexcept>

int main(int argc, char ** argv) {
    if (argc != 4 || strcmp(argv[3], "COPY") != 0) {
        fprintf(stderr, "usage: llama-quantize model-in model-out COPY\n");
        return 1;
    }
    try {
        llama_model_load_from_file(argv[1]);
    } catch (const std::exception & error) {
        fprintf(stderr, "llama_model_quantize: failed to quantize: %s\n", error.what());
        return 1;
    }
    std::ifstream in(argv[1], std::ios::binary);
    std::ofstream out(argv[2], std::ios::binary);
    out << in.rdbuf();
    if (!out.flush()) {
        fprintf(stderr, "error: cannot write %s\n", argv[2]);
        return 1;
    }
}
