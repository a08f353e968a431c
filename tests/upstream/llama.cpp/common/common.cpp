#include "common.h"

struct llama_context_params common_context_params_to_llama(const common_params & params) {
    auto cparams = llama_context_default_params();
    cparams.n_ctx  = params.cells;
    cparams.type_k = params.cache_type_k;
    cparams.type_v = params.cache_type_v;
    return cparams;
}
