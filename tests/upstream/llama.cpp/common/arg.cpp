#include "arg.h"

#include <cctype>
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
    for (const auto & type : kv_cache_types) {
        if (ggml_type_name(type) == s) {
            return type;
        }
    }
    throw std::runtime_error("Unsupported cache type: " + s);
}

static uint32_t number(const std::string & s, unsigned long most) {
    size_t read = 0;
    const unsigned long value = isdigit((unsigned char) s[0]) ? std::stoul(s, &read) : most + 1;
    if (read != s.size() || value > most) {
        throw std::runtime_error("not a number from 0 to " + std::to_string(most) + ": " + s);
    }
    return (uint32_t) value;
}

bool common_params_parse(int argc, char ** argv, common_params & params) {
    using handler = std::function<void(const std::string &)>;
    const handler cache_type_k = [&](const std::string & s) { params.cache_type_k = kv_cache_type_from_str(s); };
    const handler cache_type_v = [&](const std::string & s) { params.cache_type_v = kv_cache_type_from_str(s); };
    const handler n_ctx        = [&](const std::string & s) { params.n_ctx = number(s, 1 << 30); };
    const std::map<std::string, handler> options = {
        { "-m",             [&](const std::string & s) { params.model = s; } },
        { "--model",        [&](const std::string & s) { params.model = s; } },
        { "--host",         [&](const std::string & s) { params.host = s; } },
        { "--port",         [&](const std::string & s) { params.port = (int) number(s, 65535); } },
        { "-c",             n_ctx },
        { "--ctx-size",     n_ctx },
        { "-n",             [&](const std::string & s) { params.n_predict = number(s, 1 << 30); } },
        { "--keep",         [&](const std::string & s) { params.n_keep = number(s, 1 << 30); } },
        { "-ctk",           cache_type_k },
        { "--cache-type-k", cache_type_k },
        { "-ctv",           cache_type_v },
        { "--cache-type-v", cache_type_v },
    };
    for (int i = 1; i < argc; i++) {
        const std::string arg = argv[i];
        params.ctx_shift = arg == "--context-shift" || (params.ctx_shift && arg != "--no-context-shift");
        const auto option = options.find(arg);
        if (option == options.end()) {
            continue;
        }
        try {
            if (++i == argc) {
                throw std::runtime_error("a value is missing");
            }
            option->second(argv[i]);
        } catch (const std::exception & error) {
            fprintf(stderr, "error while handling argument \"%s\": %s\n", arg.c_str(), error.what());
            return false;
        }
    }
    return true;
}
