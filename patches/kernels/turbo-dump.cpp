// turbo-dump: what the attention of a model computes on. It loads a model as llama-server does, by the same arguments,
// reads tokens, and writes what each layer asks its cache and stores there. It states, and leaves the judging to others.
//
//   turbo-dump FILE STRIDE ARGUMENT...    tokens as 32-bit integers from stdin; ARGUMENTs are those of llama-server
//
// FILE is a sequence of records: a line of JSON with the number of bytes that follow, then 32-bit floats. Rows belong
// to tokens, from `first` on in steps of `step`. A layer is named by its number in the model; K and V are what goes
// into the cache, after RoPE and the rotation and before they are quantized; queries are what meets these keys.
//
//   k, v    one row of all heads for each token; `type` is the cache's, `id` its number in ggml. For k, where RoPE is the
//           last operation but for views, `rope_dims` is how many channels of a head it turns, and `rope_halves` whether
//           it pairs channel i with i + rope_dims / 2, not with its neighbour
//   q       (rows, heads, width), for every STRIDE-th token; weights are the softmax of cap * tanh(scale / cap * q.k), or
//           of scale * q.k without a cap, over the `visible` last cells, the query's own included. `mask` tells layers
//           apart that see other cells: of each mask the number of its first layer. `sinks`: whether the softmax has a
//           further term that no cell stands for
//   out     (rows, heads, width), what attention gives for these queries

// A llama.cpp whose tensors have no names, by which caches are known, gets a program that says so.
#include "ggml-backend.h"

#include <cstdio>

#ifndef GGML_MAX_NAME

int main() {
    fputs("turbo-dump: tensors have no names in this llama.cpp\n", stderr);
    return 1;
}

#else

#include "arg.h"
#include "common.h"
#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

struct Dump {
    FILE *  file;
    int     stride;
    int     first = 0;  // token of the batch
    int     attentions = 0;
    std::map<const ggml_tensor *, int> masks;
};

// The bytes of a tensor, views of any order included; elements are found by nb.
std::vector<uint8_t> bytes_of(const ggml_tensor * t) {
    std::vector<uint8_t> data(ggml_nbytes(t));
    ggml_backend_tensor_get(t, data.data(), 0, data.size());
    return data;
}

const float * floats_at(const std::vector<uint8_t> & data, size_t offset) {
    return (const float *) (data.data() + offset);
}

// The layer and the side of a cache's tensor, which llama.cpp names cache_k_l7; -1 for any other.
int layer_of(const ggml_tensor * t, char * side) {
    for (const ggml_tensor * at : { t, (const ggml_tensor *) t->view_src }) {
        const char * name = at ? strstr(at->name, "cache_") : nullptr;
        int          layer;
        if (name && sscanf(name, "cache_%c_l%d", side, &layer) == 2) {
            return layer;
        }
    }
    return -1;
}

void write(const Dump & dump, const std::string & header, const std::vector<float> & values) {
    const size_t size = values.size() * sizeof(float);
    if (fprintf(dump.file, "{%s, \"bytes\": %zu}\n", header.c_str(), size) < 0 ||
        fwrite(values.data(), 1, size, dump.file) != size) {
        perror("turbo-dump: writing");
        exit(1);
    }
}

std::string number(const char * name, double value) {
    char text[64];
    snprintf(text, sizeof(text), "\"%s\": %.9g", name, value);
    return text;
}

// The pairs that RoPE turned in rows, as part of a header; empty where something came after it, or where it is another kind.
std::string pairs_of(const ggml_tensor * rows) {
    while (rows && (rows->op == GGML_OP_RESHAPE || rows->op == GGML_OP_VIEW || rows->op == GGML_OP_CONT)) {
        rows = rows->src[0];
    }
    if (!rows || rows->op != GGML_OP_ROPE) {
        return "";
    }
    const int32_t dims = rows->op_params[1], mode = rows->op_params[2];
    if (mode == GGML_ROPE_TYPE_VISION || dims > rows->ne[0]) {
        return "";
    }
    return ", " + number("rope_dims", dims) + ", " + number("rope_halves", mode != 0);
}

void stored(const Dump & dump, const ggml_tensor * t) {
    char      side;
    const int layer = layer_of(t, &side);
    if (layer < 0 || t->src[0]->type != GGML_TYPE_F32) {
        return;
    }
    const ggml_tensor * rows = t->src[0];
    const auto          data = bytes_of(rows);
    std::vector<float>  values;
    for (int64_t i = 0; i < rows->ne[1]; ++i) {
        const float * row = floats_at(data, i * rows->nb[1]);
        values.insert(values.end(), row, row + rows->ne[0]);
    }
    write(dump,
          std::string("\"part\": \"") + side + "\", " + number("layer", layer) + ", " + number("first", dump.first) + ", " +
              number("step", 1) + ", " + number("rows", (double) rows->ne[1]) + ", " + number("width", (double) rows->ne[0]) +
              ", " + number("id", t->type) + ", \"type\": \"" + ggml_type_name(t->type) + "\"" +
              (side == 'k' ? pairs_of(rows) : ""),
          values);
}

void attended(Dump & dump, const ggml_tensor * t) {
    char                side  = 0;
    const ggml_tensor * q     = t->src[0];
    const ggml_tensor * mask  = t->src[3];
    const int           layer = layer_of(t->src[1], &side);
    if (layer < 0 || !mask || mask->type != GGML_TYPE_F16 || q->type != GGML_TYPE_F32 || q->ne[3] != 1) {
        return;
    }
    float params[3];  // scale, bias of ALiBi, cap
    memcpy(params, t->op_params, sizeof(params));
    const auto queries = bytes_of(q), hidden = bytes_of(mask), result = bytes_of(t);
    const int  group = dump.masks.emplace(mask, layer).first->second;
    // the first token of this batch that is the last one of a stride
    const int64_t      from = dump.stride - 1 - dump.first % dump.stride;
    std::vector<float> asked, given;
    std::string        visible;
    int64_t            rows = 0;
    for (int64_t i = from; i < q->ne[1]; i += dump.stride, ++rows) {
        for (int64_t head = 0; head < q->ne[2]; ++head) {
            const float * a = floats_at(queries, i * q->nb[1] + head * q->nb[2]);
            asked.insert(asked.end(), a, a + q->ne[0]);
            const float * b = floats_at(result, i * t->nb[2] + head * t->nb[1]);
            given.insert(given.end(), b, b + t->ne[0]);
        }
        int64_t seen = 0;
        for (int64_t cell = 0; cell < mask->ne[0]; ++cell) {
            ggml_fp16_t half;
            memcpy(&half, hidden.data() + i * mask->nb[1] + cell * mask->nb[0], sizeof(half));
            seen += ggml_fp16_to_fp32(half) > -INFINITY;
        }
        visible += (rows ? ", " : "") + std::to_string(seen);
    }
    if (rows == 0) {
        return;
    }
    const auto header = [&](const char * part, double width) {
        return std::string("\"part\": \"") + part + "\", " + number("layer", layer) + ", " + number("attention", dump.attentions) +
            ", " + number("first", (double) (dump.first + from)) + ", " + number("step", dump.stride) + ", " +
            number("rows", (double) rows) + ", " + number("heads", (double) q->ne[2]) + ", " + number("width", width);
    };
    write(dump,
          header("q", (double) q->ne[0]) + ", " + number("scale", params[0]) + ", " + number("alibi", params[1]) + ", " +
              number("cap", params[2]) + ", " + number("sinks", t->src[4] != nullptr) + ", " + number("mask", group) +
              ", \"visible\": [" + visible + "]",
          asked);
    write(dump, header("out", (double) t->ne[0]), given);
    ++dump.attentions;
}

bool observe(ggml_tensor * t, bool ask, void * user_data) {
    Dump & dump = *(Dump *) user_data;
    const bool wanted = t->op == GGML_OP_SET_ROWS || t->op == GGML_OP_FLASH_ATTN_EXT;
    if (ask) {
        return wanted;
    }
    if (t->op == GGML_OP_SET_ROWS) {
        stored(dump, t);
    } else if (wanted) {
        attended(dump, t);
    }
    return true;
}

int fail(const char * why) {
    fprintf(stderr, "turbo-dump: %s\n", why);
    return 1;
}

}  // namespace

int main(int count, char ** words) {
    if (count < 4 || atoi(words[2]) < 1) {
        fprintf(stderr, "usage: turbo-dump FILE STRIDE --model MODEL ... < TOKENS\n");
        return 2;
    }
    std::vector<char *> rest = { words[0] };
    rest.insert(rest.end(), words + 3, words + count);
    common_params params;
    if (!common_params_parse((int) rest.size(), rest.data(), params, LLAMA_EXAMPLE_SERVER)) {
        return 2;
    }
    std::vector<llama_token> tokens;
    for (llama_token token; fread(&token, sizeof(token), 1, stdin) == 1;) {
        tokens.push_back(token);
    }
    Dump dump;
    dump.stride = atoi(words[2]);
    params.warmup            = false;
    params.cb_eval           = observe;
    params.cb_eval_user_data = &dump;
    llama_backend_init();
    llama_model * model = llama_model_load_from_file(params.model.path.c_str(), common_model_params_to_llama(params));
    if (!model) {
        return fail("the model does not load");
    }
    llama_context_params context_params = common_context_params_to_llama(params);
    llama_context *      context        = llama_init_from_model(model, context_params);
    if (!context) {
        return fail("no context");
    }
    if (tokens.empty() || tokens.size() > llama_n_ctx(context)) {
        return fail("no tokens, or more than the context holds");
    }
    dump.file = fopen(words[1], "wb");
    if (!dump.file) {
        return fail("the file cannot be written");
    }
    const size_t batch = llama_n_ubatch(context);
    for (size_t at = 0; at < tokens.size(); at += batch) {
        dump.first      = (int) at;
        dump.attentions = 0;
        dump.masks.clear();
        const size_t n = std::min(batch, tokens.size() - at);
        if (llama_decode(context, llama_batch_get_one(tokens.data() + at, (int32_t) n)) != 0) {
            return fail("llama_decode failed");
        }
    }
    if (fclose(dump.file) != 0) {
        return fail("the file cannot be written");
    }
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}

#endif
