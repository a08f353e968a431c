// Makes the cache of a model with two layers, K and V of the types that are asked for, and says nothing itself: the log
// of the cache does.

#include "llama-kv-cache.h"

#include <cstring>

static ggml_type type_of(const char * name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * known = ggml_get_type_traits((ggml_type) i)->type_name;
        if (known && !strcmp(known, name)) {
            return (ggml_type) i;
        }
    }
    return GGML_TYPE_COUNT;
}

int main(int, char ** argv) {
    llama_hparams hparams = {};
    hparams.n_layer_all = 2;
    hparams.n_head      = 2;
    hparams.n_head_kv   = 1;
    hparams.n_embd_head = 64;
    hparams.attends     = { true, true };
    llama_kv_cache(hparams, type_of(argv[1]), type_of(argv[2]), 256, 0, nullptr);
    return 0;
}
