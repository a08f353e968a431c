#include "arg.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>
#include <vector>

const std::vector<ggml_type> kv_cache_types = {
    GGML_TYPE_F32,
    GGML_TYPE_F16,
    GGML_TYPE_Q8_0,
    GGML_TYPE_Q4_0,
};

static ggml_type kv_cache_type_from_str(const std::string & s) {
    for (const ggml_type type : kv_cache_types) {
        if (s == ggml_type_name(type)) {
            return type;
        }
    }
    throw std::runtime_error("Unsupported cache type: " + s);
}

static uint32_t number(const std::string & text, uint32_t most) {
    const bool digits = !text.empty() && text.size() < 11 && text.find_first_not_of("0123456789") == std::string::npos;
    const unsigned long long value = digits ? strtoull(text.c_str(), nullptr, 10) : 0;
    if (!digits || value > most) {
        throw std::runtime_error("not a number from 0 to " + std::to_string(most) + ": " + text);
    }
    return (uint32_t) value;
}

common_params read_options(int count, char ** words) {
    common_params read;
    const std::map<std::string, std::function<void(const std::string &)>> known = {
        { "--cache-type-k", [&](const std::string & value) { read.cache_type_k = kv_cache_type_from_str(value); } },
        { "--cache-type-v", [&](const std::string & value) { read.cache_type_v = kv_cache_type_from_str(value); } },
        { "--cache-type-k-draft", [&](const std::string & value) { read.speculative.cache_type_k = kv_cache_type_from_str(value); } },
        { "--cache-type-v-draft", [&](const std::string & value) { read.speculative.cache_type_v = kv_cache_type_from_str(value); } },
        { "--ctx-size",     [&](const std::string & value) { read.cells = number(value, 1 << 30); } },
        { "--host",         [&](const std::string & value) { read.host = value; } },
        { "--keep",         [&](const std::string & value) { read.keep = number(value, 1 << 30); } },
        { "--model",        [&](const std::string & value) { read.model = value; } },
        { "--port",         [&](const std::string & value) { read.port = number(value, 65535); } },
        { "--slot-save-path", [&](const std::string & value) { read.slots = value; } },
    };
    for (int at = 1; at < count; at++) {
        const std::string word = words[at];
        read.shift |= word == "--context-shift";
        const auto option = known.find(word);
        if (option == known.end()) {
            continue;
        }
        try {
            option->second(++at < count ? words[at] : throw std::runtime_error("a value is missing"));
        } catch (const std::exception & reason) {
            throw std::runtime_error("error in " + word + ": " + reason.what());
        }
    }
    return read;
}
