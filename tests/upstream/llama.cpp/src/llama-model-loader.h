// Reads a GGUF file: its metadata and where its tensors lie. Every length is checked against the file's end.
#pragma once

#include "ggml.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct gguf_value {
    uint32_t                 type = 0;
    uint64_t                 integer = 0; // integers and booleans
    double                   real = 0;    // floats
    std::string              text;
    std::vector<std::string> texts;       // array of strings; other arrays are checked and left out
};

struct gguf_tensor_info {
    ggml_type    type;
    int64_t      ne[2];
    const void * data;
};

struct llama_model_loader {
    explicit llama_model_loader(const std::string & path); // throws std::runtime_error

    uint64_t    integer(const std::string & key) const;    // throws where there is none
    uint64_t    integer(const std::string & key, uint64_t otherwise) const;
    double      real(const std::string & key, double otherwise) const;
    std::string text(const std::string & key) const;
    std::vector<float> floats(const std::string & name, int64_t ne0, int64_t ne1) const;
    bool        has_tensor(const std::string & name) const { return tensors.count(name) > 0; }

    std::map<std::string, gguf_value>       kv;
    std::map<std::string, gguf_tensor_info> tensors;

private:
    std::vector<uint8_t> bytes;
    size_t               at = 0;

    template <typename T> T read();
    std::string read_string();
    void read_value(gguf_value & value, bool in_array);
};
