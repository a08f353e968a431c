#include "llama-context.h"

#include <algorithm>
#include <stdexcept>

llama_context_params llama_context_default_params() {
    llama_context_params result = {
        /*.n_ctx           =*/ 4096,
        /*.flash_attn_type =*/ LLAMA_FLASH_ATTN_TYPE_AUTO,
        /*.type_k          =*/ GGML_TYPE_F16,
        /*.type_v          =*/ GGML_TYPE_F16,
    };
    return result;
}

llama_context::llama_context(std::shared_ptr<llama_model> whose, llama_context_params params) : model(std::move(whose)) {
    n_ctx = params.n_ctx = (std::max(params.n_ctx, 1u) + 255) / 256 * 256;
    memory.reset(model->create_memory(params));
}

static void check_blocks(const llama_model & model, char what, ggml_type type) {
    const int64_t block = ggml_blck_size(type), head = model.hparams.n_embd_head;
    if (head % block != 0) {
        throw std::runtime_error(std::string("llama_init_from_model: ") + what + " cannot be " + ggml_type_name(type) + ": a head of " +
            std::to_string(head) + " values is no whole number of blocks of " + std::to_string(block));
    }
}

std::shared_ptr<llama_context> llama_init_from_model(std::shared_ptr<llama_model> model, llama_context_params params) {
    check_blocks(*model, 'K', params.type_k);
    check_blocks(*model, 'V', params.type_v);
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO && ggml_is_quantized(params.type_v)) {
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    try {
        return std::make_shared<llama_context>(std::move(model), params);
    } catch (const std::runtime_error & reason) {
        throw std::runtime_error(std::string("llama_init_from_model: failed to initialize the context: ") + reason.what());
    }
}

uint32_t llama_n_ctx(const llama_context & ctx) {
    return ctx.n_ctx;
}

void llama_memory_shift(llama_context & ctx, uint32_t n_keep, uint32_t n_discard, uint32_t n_past) {
    ctx.memory->shift(n_keep, n_discard, n_past);
}

size_t llama_state_seq_set_data(llama_context & ctx, const std::string & state) {
    return ctx.memory->load(state);
}

std::string llama_state_seq_get_data(const llama_context & ctx, uint32_t n_past) {
    return ctx.memory->save(n_past);
}
