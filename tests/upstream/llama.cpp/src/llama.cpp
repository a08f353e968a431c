#include "llama-context.h"

#include "ggml-cpu.h"
#include "../ggml/src/ggml-cpu/ops.h"
#include "llama-kv-cache-iswa.h"
#include "llama-model-loader.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

static int64_t within(const llama_model_loader & ml, const std::string & key, int64_t low, int64_t high) {
    const uint64_t value = ml.integer(key);
    if (value < (uint64_t) low || value > (uint64_t) high) {
        throw std::runtime_error(key + " = " + std::to_string(value) + " is out of range");
    }
    return (int64_t) value;
}

static void load_vocab(const llama_model_loader & ml, llama_model & model) {
    const auto it = ml.kv.find("tokenizer.ggml.tokens");
    if (it == ml.kv.end() || it->second.texts.empty()) {
        throw std::runtime_error("the model has no vocabulary");
    }
    model.pieces = it->second.texts;
    for (size_t i = 0; i < model.pieces.size(); i++) {
        model.ids.emplace(model.pieces[i], (int32_t) i);
        model.longest = std::max(model.longest, model.pieces[i].size());
    }
    const uint64_t none = UINT64_MAX;
    const uint64_t n = model.pieces.size(), bos = ml.integer("tokenizer.ggml.bos_token_id", none),
                   eos = ml.integer("tokenizer.ggml.eos_token_id", none), unk = ml.integer("tokenizer.ggml.unknown_token_id", 0);
    const bool gpt2 = ml.text("tokenizer.ggml.model") == "gpt2";
    model.space   = gpt2 ? "\xc4\xa0" : "\xe2\x96\x81"; // U+0120 or U+2581
    model.bos     = ml.integer("tokenizer.ggml.add_bos_token", !gpt2) && bos < n ? (int32_t) bos : -1;
    model.eos     = eos < n ? (int32_t) eos : -1;
    model.unknown = unk < n ? (int32_t) unk : 0;
}

std::shared_ptr<llama_model> llama_model_load_from_file(const std::string & path) {
    const llama_model_loader ml(path);
    const std::string arch = ml.text("general.architecture");
    if (arch != "llama") {
        throw std::runtime_error("a model of the architecture '" + arch + "', not llama");
    }
    auto model = std::make_shared<llama_model>();
    load_vocab(ml, *model);

    llama_hparams & hp = model->hparams;
    hp.n_ctx_train = within(ml, "llama.context_length", 1, 1 << 30);
    hp.n_embd      = within(ml, "llama.embedding_length", 1, 1 << 16);
    hp.n_layer_all = (uint32_t) within(ml, "llama.block_count", 1, 1 << 10);
    hp.n_head      = within(ml, "llama.attention.head_count", 1, 1 << 10);
    hp.n_ff        = within(ml, "llama.feed_forward_length", 1, 1 << 18);
    hp.n_head_kv   = (int64_t) ml.integer("llama.attention.head_count_kv", (uint64_t) hp.n_head);
    hp.n_embd_head = (int64_t) ml.integer("llama.attention.key_length", (uint64_t) (hp.n_embd / hp.n_head));
    hp.n_rot_full       = (int64_t) ml.integer("llama.rope.dimension_count", (uint64_t) hp.n_embd_head);
    hp.n_vocab     = (int64_t) model->pieces.size();
    hp.rms_eps     = (float) ml.real("llama.attention.layer_norm_rms_epsilon", 1e-5);
    hp.freq_base   = (float) ml.real("llama.rope.freq_base", 10000.0);
    hp.n_swa       = (uint32_t) ml.integer("llama.attention.sliding_window", 0);
    hp.swa_period  = (uint32_t) std::max<uint64_t>(ml.integer("llama.attention.sliding_window_pattern", 1), 1);
    if (hp.n_head_kv < 1 || hp.n_head % hp.n_head_kv != 0 || hp.n_embd_head < 1 || hp.n_embd_head > 4096 ||
        hp.n_rot_full < 0 || hp.n_rot_full > hp.n_embd_head || hp.n_rot_full % 2 != 0) {
        throw std::runtime_error("the heads' sizes do not fit together");
    }

    const int64_t n_q = hp.n_head * hp.n_embd_head, n_kv = hp.n_head_kv * hp.n_embd_head;
    model->tok_embd    = ml.floats("token_embd.weight", hp.n_embd, hp.n_vocab);
    model->output_norm = ml.floats("output_norm.weight", hp.n_embd, 1);
    model->output      = ml.has_tensor("output.weight") ? ml.floats("output.weight", hp.n_embd, hp.n_vocab) : model->tok_embd;
    for (uint32_t i = 0; i < hp.n_layer_all; i++) {
        const std::string blk = "blk." + std::to_string(i) + ".";
        block_weights block;
        hp.attends.push_back(ml.has_tensor(blk + "attn_k.weight"));
        if (hp.has_kv(i)) {
            block.attention_norm = ml.floats(blk + "attn_norm.weight", hp.n_embd, 1);
            block.query          = ml.floats(blk + "attn_q.weight", hp.n_embd, n_q);
            block.key            = ml.floats(blk + "attn_k.weight", hp.n_embd, n_kv);
            block.value          = ml.floats(blk + "attn_v.weight", hp.n_embd, n_kv);
            block.attended       = ml.floats(blk + "attn_output.weight", n_q, hp.n_embd);
        }
        block.feed_norm = ml.floats(blk + "ffn_norm.weight", hp.n_embd, 1);
        block.gate      = ml.floats(blk + "ffn_gate.weight", hp.n_embd, hp.n_ff);
        block.up        = ml.floats(blk + "ffn_up.weight", hp.n_embd, hp.n_ff);
        block.down      = ml.floats(blk + "ffn_down.weight", hp.n_ff, hp.n_embd);
        model->blocks.push_back(std::move(block));
    }
    for (const auto & [name, info] : ml.tensors) {
        if (info.type == GGML_TYPE_F32 && info.ne[1] == 1) {
            floats & values = model->vectors[name] = ml.floats(name, info.ne[0], 1);
            model->tensors[name] = ggml_rows(GGML_TYPE_F32, info.ne[0], 1, values.data());
        }
    }
    return model;
}

std::vector<int32_t> llama_tokenize(const llama_model & model, const std::string & text) {
    std::string written;
    for (const char c : text) {
        written += c == ' ' ? model.space : c == '\n' && model.space == "\xc4\xa0" ? "\xc4\x8a" : std::string(1, c);
    }
    std::vector<int32_t> result;
    if (model.bos >= 0) {
        result.push_back(model.bos);
    }
    for (size_t at = 0; at < written.size();) {
        size_t  length = std::min(model.longest, written.size() - at);
        int32_t token  = -1;
        for (; length > 0 && token < 0; length -= token < 0) {
            const auto it = model.ids.find(written.substr(at, length));
            token = it == model.ids.end() ? -1 : it->second;
        }
        if (token < 0) {
            char byte[8];
            snprintf(byte, sizeof byte, "<0x%02X>", (unsigned char) written[at]);
            const auto it = model.ids.find(byte);
            token  = it == model.ids.end() ? model.unknown : it->second;
            length = 1;
        }
        result.push_back(token);
        at += length;
    }
    return result;
}

std::string llama_token_to_piece(const llama_model & model, int32_t token) {
    std::string piece = model.pieces.at((size_t) token);
    unsigned byte;
    if (piece.size() == 6 && sscanf(piece.c_str(), "<0x%2X>", &byte) == 1) {
        return std::string(1, (char) byte);
    }
    const std::pair<std::string, std::string> written[] = { { model.space, " " }, { "\xc4\x8a", "\n" } };
    for (const auto & [from, to] : written) {
        for (size_t at = 0; (at = piece.find(from, at)) != std::string::npos; at++) {
            piece.replace(at, from.size(), to);
        }
    }
    return piece;
}

bool llama_token_is_eog(const llama_model & model, int32_t token) {
    return token == model.eos;
}

const ggml_tensor * llama_model::get_tensor(const char * name) const {
    const auto it = tensors.find(name);
    return it == tensors.end() ? nullptr : &it->second;
}

llama_memory * llama_model::create_memory(const llama_context_params & params) const {
    if (hparams.n_swa > 0) {
        return new llama_kv_cache_iswa(*this, params.type_k, params.type_v, params.n_ctx, nullptr);
    }
    return new llama_kv_cache(*this, params.type_k, params.type_v, params.n_ctx, 0, nullptr);
}

static floats mul_mat(const floats & w, const floats & x) {
    floats y(w.size() / x.size());
    ggml_dot * const vec_dot = ggml_get_type_traits_cpu(GGML_TYPE_F32)->vec_dot;
    for (size_t i = 0; i < y.size(); i++) {
        vec_dot((int) x.size(), &y[i], 0, &w[i * x.size()], 0, x.data(), 0, 1);
    }
    return y;
}

static floats norm(const floats & x, const floats & weight, float eps) {
    float squares = 0.0f;
    for (const float value : x) {
        squares += value * value;
    }
    floats y(x.size());
    const float scale = 1.0f / sqrtf(squares / (float) x.size() + eps);
    for (size_t i = 0; i < x.size(); i++) {
        y[i] = x[i] * scale * weight[i];
    }
    return y;
}

static void add(floats & x, floats y) {
    floats row(x.size());
    ggml_tensor a = ggml_rows(GGML_TYPE_F32, (int64_t) x.size(), 1, x.data());
    ggml_tensor b = ggml_rows(GGML_TYPE_F32, (int64_t) y.size(), 1, y.data());
    ggml_tensor sum = a;
    sum.src[0] = &a;
    sum.src[1] = &b;
    const ggml_compute_params params = { 0, 1, row.data(), row.size() * sizeof(float), nullptr, false };
    ggml_compute_forward_add(&params, &sum);
}

// What the query heads of a layer find in the cells up to n_past; that one's keys and values come from `in`.
static floats attention(llama_context & ctx, uint32_t il, const floats & in, uint32_t n_past) {
    const llama_hparams & hp    = ctx.model->hparams;
    const block_weights & block = ctx.model->blocks[il];
    floats q = mul_mat(block.query, in), k = mul_mat(block.key, in);
    for (int64_t h = 0; h < hp.n_head; h++) {
        llama_rope(&q[h * hp.n_embd_head], hp.n_rot(), hp.freq_base, (int32_t) n_past);
    }
    for (int64_t h = 0; h < hp.n_head_kv; h++) {
        llama_rope(&k[h * hp.n_embd_head], hp.n_rot(), hp.freq_base, (int32_t) n_past);
    }
    return ctx.memory->attend(il, n_past, std::move(q), std::move(k), mul_mat(block.value, in));
}

int32_t llama_decode(llama_context & ctx, int32_t token, uint32_t n_past) {
    const llama_model &   model = *ctx.model;
    const llama_hparams & hp    = model.hparams;
    floats x(model.tok_embd.begin() + token * hp.n_embd, model.tok_embd.begin() + (token + 1) * hp.n_embd);

    for (uint32_t il = 0; il < hp.n_layer_all; il++) {
        const block_weights & block = model.blocks[il];
        if (hp.has_kv(il)) {
            add(x, mul_mat(block.attended, attention(ctx, il, norm(x, block.attention_norm, hp.rms_eps), n_past)));
        }
        const floats fed = norm(x, block.feed_norm, hp.rms_eps);
        floats gate = mul_mat(block.gate, fed);
        const floats up = mul_mat(block.up, fed);
        for (size_t i = 0; i < gate.size(); i++) {
            gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
        }
        add(x, mul_mat(block.down, gate));
    }
    const floats logits = mul_mat(model.output, norm(x, model.output_norm, hp.rms_eps));
    return (int32_t) (std::max_element(logits.begin(), logits.end()) - logits.begin());
}
