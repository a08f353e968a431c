#include "llama-kv-layers.h"

#include "llama-impl.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <mutex>
#include <stdexcept>

struct llama_kv_rule {
    enum { FIRST, LAST, LAYERS } where;
    uint32_t  low, high; // of LAYERS; else high of them
    ggml_type type;
};

struct llama_kv_layers {
    ggml_type                  base;
    std::vector<llama_kv_rule> rules;
};

static std::string rule_to_str(const llama_kv_rule & rule) {
    static const char * const words[] = { "first=", "last=", "layers=" };
    const std::string low = rule.where == llama_kv_rule::LAYERS && rule.low < rule.high ? std::to_string(rule.low) + "-" : "";
    return words[rule.where] + low + std::to_string(rule.high) + ":" + ggml_type_name(rule.type);
}

// -- reading ----------------------------------------------------------------------------------------------------

static std::runtime_error refused(const std::string & text, const std::string & piece, const std::string & why) {
    return std::runtime_error("cache type '" + text + "': '" + piece + "': " + why);
}

static ggml_type read_type(const std::string & text, const std::string & name, const std::vector<ggml_type> & known) {
    std::string names;
    for (const ggml_type type : known) {
        if (name == ggml_type_name(type)) {
            return type;
        }
        names += (names.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    throw refused(text, name, "no such type; known types are " + names);
}

// A number of at most four digits, from `at` on; moves `at` behind it.
static bool read_number(const std::string & text, size_t & at, uint32_t & number) {
    const size_t start = at;
    for (number = 0; at < text.size() && text[at] >= '0' && text[at] <= '9' && at < start + 5; at++) {
        number = number * 10 + (uint32_t) (text[at] - '0');
    }
    return at > start && at <= start + 4;
}

static llama_kv_rule read_rule(const std::string & text, const std::string & piece, const std::vector<ggml_type> & known) {
    static const char * const words[] = { "first=", "last=", "layers=" };
    llama_kv_rule rule = {};
    for (size_t i = 0; i < 3; i++) {
        size_t at = strlen(words[i]);
        if (piece.compare(0, at, words[i]) != 0 || !read_number(piece, at, rule.high)) {
            continue;
        }
        rule.where = static_cast<decltype(rule.where)>(i);
        rule.low   = rule.where == llama_kv_rule::LAYERS ? rule.high : 0;
        if (rule.where == llama_kv_rule::LAYERS && at < piece.size() && piece[at] == '-' && !read_number(piece, ++at, rule.high)) {
            break;
        }
        if (at == piece.size() || piece[at] != ':') {
            break;
        }
        rule.type = read_type(text, piece.substr(at + 1), known);
        if (rule.where != llama_kv_rule::LAYERS && rule.high == 0) {
            throw refused(text, piece, "that names no layer");
        }
        if (rule.low > rule.high) {
            throw refused(text, piece, "the range runs backwards");
        }
        return rule;
    }
    throw refused(text, piece, "a rule is first=N:TYPE, last=N:TYPE, layers=A:TYPE or layers=A-B:TYPE");
}

static const llama_kv_layers * keep(llama_kv_layers layers) {
    static std::mutex                 mutex;
    static std::list<llama_kv_layers> all;
    const std::lock_guard<std::mutex> lock(mutex);
    all.push_back(std::move(layers));
    return &all.back();
}

llama_kv_type llama_kv_type_from_str(const std::string & text, const std::vector<ggml_type> & known) {
    std::string lower = text;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? (char) (c + 32) : c; });
    size_t        comma = lower.find(',');
    llama_kv_type found = read_type(text, lower.substr(0, comma), known);
    llama_kv_layers layers = { found.type, {} };
    while (comma != std::string::npos) {
        const size_t start = comma + 1;
        comma = lower.find(',', start);
        layers.rules.push_back(read_rule(text, lower.substr(start, comma == std::string::npos ? comma : comma - start), known));
    }
    if (!layers.rules.empty()) {
        found.layers = keep(std::move(layers));
    }
    return found;
}

std::string llama_kv_type_to_str(const llama_kv_type & type) {
    std::string text = ggml_type_name(type.type);
    for (const llama_kv_rule & rule : type.layers ? type.layers->rules : std::vector<llama_kv_rule>()) {
        text += "," + rule_to_str(rule);
    }
    return text;
}

bool llama_kv_layers_quantized(const llama_kv_layers * layers) {
    return layers && std::any_of(layers->rules.begin(), layers->rules.end(), [](const llama_kv_rule & rule) {
        return ggml_is_quantized(rule.type);
    });
}

// -- while a context's memory is made ---------------------------------------------------------------------------

namespace {
struct making {
    const llama_kv_layers * k;
    const llama_kv_layers * v;
    bool                    counted = false;
    std::vector<uint32_t>   layers  = {}; // those with a cache, in order
    std::vector<bool>       typed   = {}; // of these, those whose types were asked for
};
}

static thread_local making * current = nullptr;

llama_kv_layers_scope::llama_kv_layers_scope(
        ggml_type type_k, const llama_kv_layers * k, ggml_type type_v, const llama_kv_layers * v) {
    k = k && k->base == type_k ? k : nullptr;
    v = v && v->base == type_v ? v : nullptr;
    current = k || v ? new making { k, v } : nullptr;
}

llama_kv_layers_scope::~llama_kv_layers_scope() {
    delete current;
    current = nullptr;
}

void llama_kv_layers_count(uint32_t n_layer, const std::function<bool(uint32_t)> & has_cache) {
    if (!current || current->counted) {
        return;
    }
    current->counted = true;
    for (uint32_t il = 0; il < n_layer; il++) {
        if (has_cache(il)) {
            current->layers.push_back(il);
        }
    }
    const size_t n = current->layers.size();
    current->typed.resize(n);
    for (const llama_kv_layers * side : { current->k, current->v }) {
        for (const llama_kv_rule & rule : side ? side->rules : std::vector<llama_kv_rule>()) {
            if (rule.high + (rule.where == llama_kv_rule::LAYERS) > n) {
                throw std::runtime_error("cache type rule '" + rule_to_str(rule) + "': the model has " + std::to_string(n) +
                    " attention layer" + (n == 1 ? "" : "s") + ", counted from 0");
            }
        }
    }
}

static ggml_type type_at(const llama_kv_layers * side, uint32_t number, uint32_t n, ggml_type type) {
    for (const llama_kv_rule & rule : side ? side->rules : std::vector<llama_kv_rule>()) {
        const uint32_t low  = rule.where == llama_kv_rule::LAST ? n - rule.high : rule.low;
        const uint32_t high = rule.where == llama_kv_rule::LAST ? n - 1 : rule.where == llama_kv_rule::FIRST ? rule.high - 1 : rule.high;
        type = number >= low && number <= high ? rule.type : type;
    }
    return type;
}

llama_kv_layer_types llama_kv_layers_at(const llama_kv_layer & layer, ggml_type type_k, ggml_type type_v) {
    if (!current) {
        return { type_k, type_v };
    }
    const std::string here = "cache type rules: layer " + std::to_string(layer.il) + " of the model ";
    const auto it = std::find(current->layers.begin(), current->layers.end(), layer.il);
    if (it == current->layers.end()) {
        throw std::runtime_error(here + "has a cache that was not counted; this architecture takes no rules");
    }
    const uint32_t number = (uint32_t) (it - current->layers.begin()), n = (uint32_t) current->layers.size();
    if (current->typed[number]) {
        throw std::runtime_error(here + "has several caches; this architecture takes no rules");
    }
    current->typed[number] = true;
    const llama_kv_layer_types types = { type_at(current->k, number, n, type_k), type_at(current->v, number, n, type_v) };
    if (!layer.has_v && types.k != types.v) {
        throw std::runtime_error(here + "keeps V in K, so it cannot have K of " + ggml_type_name(types.k) + " and V of " +
            ggml_type_name(types.v));
    }
    if (layer.has_v && layer.v_trans && ggml_is_quantized(types.v)) {
        throw std::runtime_error(here + "cannot have V of " + ggml_type_name(types.v) + " without flash attention");
    }
    if (layer.n_embd_head_k % ggml_blck_size(types.k) != 0 || (layer.has_v && layer.n_embd_head_v % ggml_blck_size(types.v) != 0)) {
        throw std::runtime_error(here + "has heads of " + std::to_string(layer.n_embd_head_k) + " and " +
            std::to_string(layer.n_embd_head_v) + " values, no whole blocks of " + ggml_type_name(types.k) + " and " +
            ggml_type_name(types.v));
    }
    return types;
}

llama_kv_layer_types llama_kv_layers_of_rules(uint32_t il, ggml_type type_k, ggml_type type_v) {
    const std::vector<uint32_t> layers = current ? current->layers : std::vector<uint32_t>();
    const auto it = std::find(layers.begin(), layers.end(), il);
    if (it == layers.end()) {
        return { type_k, type_v };
    }
    const uint32_t number = (uint32_t) (it - layers.begin()), n = (uint32_t) layers.size();
    return { type_at(current->k, number, n, type_k), type_at(current->v, number, n, type_v) };
}

// -- what was made ----------------------------------------------------------------------------------------------

static std::vector<ggml_type> types_of(const std::vector<llama_kv_made> & made) {
    std::vector<ggml_type> types;
    for (const llama_kv_made & one : made) {
        if (one.tensor && std::find(types.begin(), types.end(), one.tensor->type) == types.end()) {
            types.push_back(one.tensor->type);
        }
    }
    return types;
}

std::string llama_kv_layers_names(const std::vector<llama_kv_made> & made, ggml_type otherwise) {
    std::string names;
    for (const ggml_type type : types_of(made)) {
        names += (names.empty() ? "" : "+") + std::string(ggml_type_name(type));
    }
    return names.empty() ? ggml_type_name(otherwise) : names;
}

ggml_type llama_kv_layers_made(const char * side, const std::vector<llama_kv_made> & made, ggml_type otherwise) {
    const std::vector<ggml_type> types = types_of(made);
    for (const ggml_type type : current ? types : std::vector<ggml_type>()) {
        std::string numbers;
        size_t      bytes = 0, end = SIZE_MAX; // the number that would carry on the last range
        bool        open = false;
        const auto close = [&]() { numbers += open ? "-" + std::to_string(end - 1) : ""; };
        for (const llama_kv_made & one : made) {
            if (!one.tensor || one.tensor->type != type) {
                continue;
            }
            bytes += ggml_nbytes(one.tensor);
            const size_t number = (size_t) (std::find(current->layers.begin(), current->layers.end(), one.il) - current->layers.begin());
            if (number == end) {
                open = true;
            } else {
                close();
                open = false;
                numbers += (numbers.empty() ? "" : ",") + std::to_string(number);
            }
            end = number + 1;
        }
        close();
        LLAMA_LOG_INFO("llama_kv_cache: %s of attention layers %s (of %zu): %s, %.2f MiB\n", side, numbers.c_str(),
            current->layers.size(), ggml_type_name(type), (double) bytes / (1024.0 * 1024.0));
    }
    const auto quantized = std::find_if(types.begin(), types.end(), ggml_is_quantized);
    return quantized != types.end() ? *quantized : types.empty() ? otherwise : types.front();
}
