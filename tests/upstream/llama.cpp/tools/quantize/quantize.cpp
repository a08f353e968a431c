// llama-quantize: reads a model and writes it again. The miniature knows one type, COPY, which changes nothing.

#include "llama.h"

#include <fstream>
#include <stdexcept>

static void copy(const char * from, const char * to) {
    llama_model_load_from_file(from); // throws where it is no model
    std::ifstream in(from, std::ios::binary);
    std::ofstream out(to, std::ios::binary);
    out << in.rdbuf();
    if (!out.flush()) {
        throw std::runtime_error(std::string("cannot write ") + to);
    }
}

int main(int count, char ** words) {
    if (count != 4 || std::string(words[3]) != "COPY") {
        fprintf(stderr, "usage: llama-quantize FROM TO COPY\n");
        return 1;
    }
    try {
        copy(words[1], words[2]);
    } catch (const std::exception & reason) {
        fprintf(stderr, "error: no copy was made: %s\n", reason.what());
        return 1;
    }
}
