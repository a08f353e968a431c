#include "llama-kv-cache.h"

#include "ggml-cpu.h"
#include "../ggml/src/ggml-cpu/ops.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

void llama_rope(float * x, int64_t n_rot, float freq_base, int32_t pos) {
    for (int64_t i = 0; i + 1 < n_rot; i += 2) {
        const float angle = (float) pos * powf(freq_base, -(float) i / (float) n_rot);
        const float c = cosf(angle), s = sinf(angle), a = x[i], b = x[i + 1];
        x[i]     = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

// Orthonormal Walsh-Hadamard transform of every n values of x; its own inverse.
static void hadamard(std::vector<float> & x, int64_t n) {
    for (size_t start = 0; n > 0 && start < x.size(); start += n) {
        for (int64_t half = 1; half < n; half *= 2) {
            for (int64_t i = 0; i < n; i++) {
                if (i & half) {
                    continue;
                }
                const float a = x[start + i], b = x[start + i + half];
                x[start + i]        = (a + b) * (float) M_SQRT1_2;
                x[start + i + half] = (a - b) * (float) M_SQRT1_2;
            }
        }
    }
}

llama_kv_cache::llama_kv_cache(const llama_hparams & hparams, ggml_type type_k, ggml_type type_v, uint32_t kv_size) :
    hparams(hparams), type_k(type_k), type_v(type_v) {
    const int64_t n_embd_gqa = hparams.n_head_kv * hparams.n_embd_head;
    row_k = ggml_row_size(type_k, n_embd_gqa);
    row_v = ggml_row_size(type_v, n_embd_gqa);
    k.assign(hparams.n_layer, std::vector<uint8_t>(row_k * kv_size));
    v.assign(hparams.n_layer, std::vector<uint8_t>(row_v * kv_size));

    const float mib_k = (float) (row_k * kv_size * hparams.n_layer) / (1024.0f * 1024.0f);
    const float mib_v = (float) (row_v * kv_size * hparams.n_layer) / (1024.0f * 1024.0f);
    // the line by which others tell the types, to the letter
    fprintf(stderr,
        "llama_kv_cache: size = %7.2f MiB (%6u cells, %3d layers,  1/1 seqs), "
        "K (%s): %7.2f MiB, V (%s): %7.2f MiB\n",
        mib_k + mib_v, kv_size, (int) hparams.n_layer, ggml_type_name(type_k), mib_k, ggml_type_name(type_v), mib_v);

    const char * disable = getenv("LLAMA_ATTN_ROT_DISABLE");
    if (!(disable && atoi(disable)) && hparams.n_embd_head % 64 == 0) {
        rot_k = ggml_get_type_traits(type_k)->is_quantized ? 64 : 0;
        rot_v = ggml_get_type_traits(type_v)->is_quantized ? 64 : 0;
        while (rot_k && hparams.n_embd_head % (2 * rot_k) == 0) { // keys by the largest power of two, values by 64
            rot_k *= 2;
        }
    }
    fprintf(stderr, "llama_kv_cache: attn_rot_k = %d\nllama_kv_cache: attn_rot_v = %d\n", rot_k > 0, rot_v > 0);
}

void llama_kv_cache::store(int64_t layer, uint32_t cell, std::vector<float> kx, std::vector<float> vx) {
    hadamard(kx, rot_k);
    hadamard(vx, rot_v);
    ggml_get_type_traits_cpu(type_k)->from_float(kx.data(), &k[layer][cell * row_k], kx.size());
    ggml_get_type_traits_cpu(type_v)->from_float(vx.data(), &v[layer][cell * row_v], vx.size());
}

std::vector<float> llama_kv_cache::attend(int64_t layer, uint32_t n, std::vector<float> q) const {
    hadamard(q, rot_k);
    const int64_t n_embd_head = hparams.n_embd_head, n_head = (int64_t) q.size() / n_embd_head;
    std::vector<float> out(q.size());
    // cells of all heads lie together, so those of one head are strided rows
    const auto cells = [&](ggml_type type, const std::vector<uint8_t> & from, size_t row) {
        ggml_tensor heads = ggml_rows(type, n_embd_head, n, (void *) from.data());
        heads.nb[2] = heads.nb[1];
        heads.nb[1] = row;
        heads.ne[2] = hparams.n_head_kv;
        return heads;
    };
    ggml_tensor queries = ggml_rows(GGML_TYPE_F32, n_embd_head, 1, q.data());
    queries.ne[2] = n_head;
    ggml_tensor keys = cells(type_k, k[layer], row_k), values = cells(type_v, v[layer], row_v);
    ggml_tensor result = ggml_rows(GGML_TYPE_F32, n_embd_head, n_head, out.data());
    const float scale = 1.0f / sqrtf((float) n_embd_head);
    memcpy(result.op_params, &scale, sizeof scale);
    result.op = GGML_OP_FLASH_ATTN_EXT;
    result.src[0] = &queries;
    result.src[1] = &keys;
    result.src[2] = &values;

    std::vector<uint8_t> work(ggml_graph_plan(&result, 1).work_size);
    ggml_threadpool pool = { 0 };
    const ggml_compute_params params = { 0, 1, work.data(), work.size(), &pool, false };
    ggml_compute_forward_flash_attn_ext(&params, &result);
    hadamard(out, rot_v);
    return out;
}

void llama_kv_cache::shift(uint32_t from, uint32_t n_discard, uint32_t n_past) {
    const int64_t n_embd_gqa = hparams.n_head_kv * hparams.n_embd_head;
    std::vector<float> keys(n_embd_gqa);
    for (int64_t layer = 0; layer < hparams.n_layer; layer++) {
        ggml_tensor cached = ggml_rows(type_k, n_embd_gqa, n_past, k[layer].data());
        for (uint32_t to = from; to + n_discard < n_past; to++) {
            int32_t source = (int32_t) (to + n_discard);
            ggml_tensor index = ggml_rows(GGML_TYPE_I32, 1, 1, &source);
            ggml_tensor rows  = ggml_rows(GGML_TYPE_F32, n_embd_gqa, 1, keys.data());
            rows.src[0] = &cached;
            rows.src[1] = &index;
            const ggml_compute_params params = { 0, 1, nullptr, 0, nullptr, false };
            ggml_compute_forward_get_rows(&params, &rows);
            hadamard(keys, rot_k);
            for (int64_t h = 0; h < hparams.n_head_kv; h++) {
                llama_rope(&keys[h * hparams.n_embd_head], hparams.n_rot, hparams.freq_base, -(int32_t) n_discard);
            }
            hadamard(keys, rot_k);
            ggml_get_type_traits_cpu(type_k)->from_float(keys.data(), &k[layer][to * row_k], n_embd_gqa);
        }
        memmove(&v[layer][from * row_v], &v[layer][(from + n_discard) * row_v], (n_past - from - n_discard) * row_v);
    }
}

template <typename... T> static void put(std::string & out, T... numbers) {
    (out.append((const char *) &numbers, sizeof numbers), ...);
}

std::string llama_kv_cache::save(uint32_t n) const {
    std::string out;
    put(out, (uint32_t) 1, n); // streams, cells
    for (uint32_t cell = 0; cell < n; cell++) {
        put(out, (int32_t) cell, (uint32_t) 1, (int32_t) 0); // of one sequence, which is number 0
    }
    put(out, (uint32_t) 0, (uint32_t) k.size()); // V is not transposed
    for (const auto & layer : k) {
        put(out, (int32_t) type_k, (uint64_t) row_k);
        out.append((const char *) layer.data(), row_k * n);
    }
    for (const auto & layer : v) {
        put(out, (int32_t) type_v, (uint64_t) row_v);
        out.append((const char *) layer.data(), row_v * n);
    }
    return out;
}
