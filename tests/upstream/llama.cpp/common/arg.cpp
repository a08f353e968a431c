#include "arg.h"

#include <algorithm>
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

static ggml_type cache_type(const std::string & name) {
    const auto has_name = [&](ggml_type type) { return name == ggml_type_name(type); };
    const auto found = std::find_if(kv_cache_types.begin(), kv_cache_types.end(), has_name);
    if (found == kv_cache_types.end()) {
        throw std::runtime_error(name + " is no type for a cache");
    }
    return *found;
}

static uint32_t number(const std::string & text, uint32_t most) {
    const bool digits = !text.empty() && text.size() < 11 && text.find_first_not_of("0123456789") == std::string::npos;
    const unsigned long long value = digits ? strtoull(text.c_str(), nullptr, 10) : 0;
    if (!digits || value > most) {
        throw std::runtime_error("not a number from 0 to " + std::to_string(most) + ": " + text);
    }
    return (uint32_t) value;
}

options read_options(int count, char ** words) {
    options read;
    const std::map<std::string, std::function<void(const std::string &)>> known = {
        { "--cache-type-k", [&](const std::string & value) { read.type_k = cache_type(value); } },
        { "--cache-type-v", [&](const std::string & value) { read.type_v = cache_type(value); } },
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
