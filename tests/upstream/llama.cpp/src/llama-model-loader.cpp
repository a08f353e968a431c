#include "llama-model-loader.h"

#include <cstring>
#include <fstream>
#include <stdexcept>

enum { GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64 };

template <typename T> T llama_model_loader::read() {
    if (bytes.size() - at < sizeof(T)) {
        throw std::runtime_error("the file ends too early");
    }
    T value;
    memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
    return value;
}

std::string llama_model_loader::read_string() {
    const uint64_t length = read<uint64_t>();
    if (length > bytes.size() - at) {
        throw std::runtime_error("a string runs past the end of the file");
    }
    at += length;
    return std::string((const char *) bytes.data() + at - length, length);
}

void llama_model_loader::read_value(gguf_value & value, bool in_array) {
    switch (value.type) {
        case GGUF_U8:
        case GGUF_BOOL:   value.integer = read<uint8_t>();  break;
        case GGUF_I8:     value.integer = read<int8_t>();   break;
        case GGUF_U16:    value.integer = read<uint16_t>(); break;
        case GGUF_I16:    value.integer = read<int16_t>();  break;
        case GGUF_U32:    value.integer = read<uint32_t>(); break;
        case GGUF_I32:    value.integer = read<int32_t>();  break;
        case GGUF_U64:
        case GGUF_I64:    value.integer = read<uint64_t>(); break;
        case GGUF_F32:    value.real = read<float>();       break;
        case GGUF_F64:    value.real = read<double>();      break;
        case GGUF_STRING: value.text = read_string();       break;
        case GGUF_ARRAY:
            {
                if (in_array) {
                    throw std::runtime_error("an array of arrays");
                }
                gguf_value element;
                element.type = read<uint32_t>();
                const uint64_t count = read<uint64_t>();
                if (count > bytes.size() - at) {
                    throw std::runtime_error("an array runs past the end of the file");
                }
                for (uint64_t left = count; left > 0; left--) {
                    read_value(element, true);
                    if (element.type == GGUF_STRING) {
                        value.texts.push_back(element.text);
                    }
                }
            } break;
        default:
            throw std::runtime_error("metadata of unknown type " + std::to_string(value.type));
    }
}

llama_model_loader::llama_model_loader(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw std::runtime_error("cannot open " + path);
    }
    bytes.assign(std::istreambuf_iterator<char>(file), {});
    if (read<uint32_t>() != 0x46554747) { // "GGUF"
        throw std::runtime_error("no GGUF file: " + path);
    }
    const uint32_t version = read<uint32_t>();
    if (version != 2 && version != 3) {
        throw std::runtime_error("GGUF version " + std::to_string(version) + " is not known");
    }
    const uint64_t n_tensors = read<uint64_t>();
    const uint64_t n_kv      = read<uint64_t>();

    for (uint64_t i = 0; i < n_kv; i++) {
        const std::string key = read_string();
        gguf_value value;
        value.type = read<uint32_t>();
        read_value(value, false);
        kv[key] = value;
    }

    struct placed { std::string name; gguf_tensor_info info; uint64_t offset; };
    std::vector<placed> found;
    for (uint64_t i = 0; i < n_tensors; i++) {
        placed t = { read_string(), { GGML_TYPE_F32, { 1, 1 }, nullptr }, 0 };
        const uint32_t n_dims = read<uint32_t>();
        if (n_dims < 1 || n_dims > 2) {
            throw std::runtime_error(t.name + " has " + std::to_string(n_dims) + " dimensions");
        }
        for (uint32_t d = 0; d < n_dims; d++) {
            const uint64_t ne = read<uint64_t>();
            if (ne < 1 || ne > (1u << 30)) {
                throw std::runtime_error(t.name + " has an impossible shape");
            }
            t.info.ne[d] = (int64_t) ne;
        }
        const uint32_t type = read<uint32_t>();
        if (type >= GGML_TYPE_COUNT || !ggml_get_type_traits((ggml_type) type)->to_float) {
            throw std::runtime_error(t.name + " has a type that cannot be read: " + std::to_string(type));
        }
        t.info.type = (ggml_type) type;
        t.offset = read<uint64_t>();
        found.push_back(t);
    }

    const uint64_t alignment = integer("general.alignment", 32);
    if (alignment < 1 || alignment > 4096) {
        throw std::runtime_error("impossible alignment");
    }
    const size_t start = (at + alignment - 1) / alignment * alignment;
    for (placed & t : found) {
        if (t.info.ne[0] % ggml_get_type_traits(t.info.type)->blck_size != 0) {
            throw std::runtime_error(t.name + ": a row is no whole number of blocks");
        }
        const uint64_t size = ggml_row_size(t.info.type, t.info.ne[0]) * (uint64_t) t.info.ne[1];
        if (start > bytes.size() || t.offset > bytes.size() - start || size > bytes.size() - start - t.offset) {
            throw std::runtime_error(t.name + " runs past the end of the file");
        }
        t.info.data = bytes.data() + start + t.offset;
        tensors[t.name] = t.info;
    }
}

uint64_t llama_model_loader::integer(const std::string & key) const {
    const auto it = kv.find(key);
    if (it == kv.end()) {
        throw std::runtime_error("the metadata lacks " + key);
    }
    return it->second.integer;
}

uint64_t llama_model_loader::integer(const std::string & key, uint64_t otherwise) const {
    return kv.count(key) ? kv.at(key).integer : otherwise;
}

double llama_model_loader::real(const std::string & key, double otherwise) const {
    return kv.count(key) ? kv.at(key).real : otherwise;
}

std::string llama_model_loader::text(const std::string & key) const {
    return kv.count(key) ? kv.at(key).text : std::string();
}

std::vector<float> llama_model_loader::floats(const std::string & name, int64_t ne0, int64_t ne1) const {
    const auto it = tensors.find(name);
    if (it == tensors.end() || it->second.ne[0] != ne0 || it->second.ne[1] != ne1) {
        throw std::runtime_error(name + " is missing, or has another shape");
    }
    std::vector<float> values(ne0 * ne1);
    ggml_get_type_traits(it->second.type)->to_float(it->second.data, values.data(), ne0 * ne1);
    return values;
}
