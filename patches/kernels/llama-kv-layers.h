// Cache types that differ between the attention layers of a model.
//
//     SPEC = TYPE ("," RULE)*
//     RULE = "first=" N ":" TYPE  |  "last=" N ":" TYPE  |  "layers=" A ["-" B] ":" TYPE
//
// stands where a cache type is asked for, for K and V each. Layers are those that have a cache, counted from 0 over the
// whole model; where two rules name the same layer the later one wins.
#pragma once

#include "llama.h"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

// The rules behind a type. Once made they are never freed, so parameters may be copied and outlive each other.
struct llama_kv_layers;

// What a SPEC says. It can be used as the type of those layers that no rule names; a plain type has no rules.
struct llama_kv_type {
    ggml_type               type;
    const llama_kv_layers * layers = nullptr;

    llama_kv_type(ggml_type type) : type(type) {}
    operator ggml_type() const { return type; }
};

// Reads a SPEC of `known` types. Throws std::runtime_error with the piece that cannot be read.
LLAMA_API llama_kv_type llama_kv_type_from_str(const std::string & text, const std::vector<ggml_type> & known);

// The SPEC as it is written: small letters, plain numbers.
LLAMA_API std::string llama_kv_type_to_str(const llama_kv_type & type);

// -- inside the library -----------------------------------------------------------------------------------------

// Whether the rules name a quantized type.
bool llama_kv_layers_quantized(const llama_kv_layers * layers);

// The rules of a context, while this thread makes its memory. Those of another base type were left behind by somebody
// who changed the type alone, as for a draft model; they are dropped.
class llama_kv_layers_scope {
  public:
    llama_kv_layers_scope(ggml_type type_k, const llama_kv_layers * k, ggml_type type_v, const llama_kv_layers * v);
    ~llama_kv_layers_scope();
    llama_kv_layers_scope(const llama_kv_layers_scope &) = delete;
    llama_kv_layers_scope & operator=(const llama_kv_layers_scope &) = delete;
};

// States which of n_layer layers have a cache. A model of several caches says it for all of them before it makes the
// first; what a single cache says then is passed over. Throws std::runtime_error when a rule goes beyond the layers.
void llama_kv_layers_count(uint32_t n_layer, const std::function<bool(uint32_t)> & has_cache);

// A layer of a cache that is being made, and what its heads hold; a model that keeps V in K has no V.
struct llama_kv_layer {
    uint32_t il, n_embd_head_k, n_embd_head_v;
    bool     has_v, v_trans;
};

struct llama_kv_layer_types {
    ggml_type k, v;
};

// The types of a layer. Throws std::runtime_error when the layer cannot have the type that a rule gives it.
llama_kv_layer_types llama_kv_layers_at(const llama_kv_layer & layer, ggml_type type_k, ggml_type type_v);

// What the rules say of a layer before it is made, whether or not it can have these types.
llama_kv_layer_types llama_kv_layers_of_rules(uint32_t il, ggml_type type_k, ggml_type type_v);

// One tensor of a cache that was made.
struct llama_kv_made {
    uint32_t            il;
    const ggml_tensor * tensor; // or null
};

// Names of the types of all tensors, each once; `otherwise` where there is none.
std::string llama_kv_layers_names(const std::vector<llama_kv_made> & made, ggml_type otherwise);

// States in the log which layers have which type, when there are rules. Returns the type that decides whether the cache
// is rotated, a quantized one if there is one; `otherwise` where there are no tensors.
ggml_type llama_kv_layers_made(const char * side, const std::vector<llama_kv_made> & made, ggml_type otherwise);

template <typename L> std::vector<llama_kv_made> llama_kv_layers_of(const std::vector<L> & layers, ggml_tensor * L::*side) {
    std::vector<llama_kv_made> made;
    for (const L & layer : layers) {
        made.push_back({ layer.il, layer.*side });
    }
    return made;
}
