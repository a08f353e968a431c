#include "llama-kv-cache.h"

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "../ggml/src/ggml-cpu/ops.h"
#include "llama-graph.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

void llama_rope(float * x, int64_t n_rot, float freq_base, int32_t pos) {
    for (int64_t i = 0; i + 1 < n_rot; i += 2) {
        const float angle = (float) pos * powf(freq_base, -(float) i / (float) n_rot);
        const float c = cosf(angle), s = sinf(angle), a = x[i], b = x[i + 1];
        x[i]     = a * c - b * s;
        x[i + 1] = a * s + b * c;
    }
}

// Orthonormal Walsh-Hadamard transform of every n of so many values; its own inverse.
static void hadamard(float * x, size_t count, int64_t n) {
    for (size_t start = 0; n > 0 && start < count; start += n) {
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

static void hadamard(std::vector<float> & x, int64_t n) {
    hadamard(x.data(), x.size(), n);
}

llama_kv_cache::llama_kv_cache(
        const llama_model & model, ggml_type type_k, ggml_type type_v, uint32_t kv_size, uint32_t n_swa,
        const layer_filter_cb & filter) : hparams(model.hparams), n_swa(n_swa) {
    const int64_t n_embd_gqa = hparams.n_head_kv * hparams.n_embd_head;
    const bool    v_trans    = false; // values lie as keys do
    ctx.reset(ggml_init({ 0, nullptr, true }), ggml_free);
    for (uint32_t il = 0; il < hparams.n_layer_all; il++) {
        if (!hparams.has_kv(il) || (filter && !filter(il))) {
            continue;
        }
        // A layer's cache lies where the layer is computed; that is for show, as all memory is the processor's.
        const char *               dev_name = "CPU";
        ggml_backend_buffer_type_t buft     = ggml_backend_cpu_buffer_type();
        if (ggml_backend_dev_count() > 1) {
            auto * dev = ggml_backend_dev_get(1);
            buft     = ggml_backend_dev_buffer_type(dev);
            dev_name = ggml_backend_dev_name(dev);
        }
        LLAMA_LOG_INFO("llama_kv_cache: layer %3d: dev = %s%s\n", (int) il, dev_name,
                       buft == ggml_backend_cpu_buffer_type() ? "" : ", in its memory");
        const bool has_v = !v_trans && n_embd_gqa > 0;
        ggml_tensor * k = ggml_new_tensor_3d(ctx.get(), type_k, n_embd_gqa, kv_size, 1);
        ggml_tensor * v = has_v ? ggml_new_tensor_3d(ctx.get(), type_v, n_embd_gqa, kv_size, 1) : nullptr;
        layers.push_back({ il, k, v });
    }
    buffer.reset(ggml_backend_alloc_ctx_tensors(ctx.get(), ggml_backend_dev_init(ggml_backend_dev_get(0), nullptr)),
                 ggml_backend_buffer_free);

    size_t memory_size_k = 0, memory_size_v = 0;
    for (const kv_layer & one : layers) {
        memory_size_k += ggml_nbytes(one.k);
        memory_size_v += ggml_nbytes(one.v);
    }
    // the line by which others tell the types, to the letter
    LLAMA_LOG_INFO(
        "llama_kv_cache: size = %7.2f MiB (%6u cells, %3d layers,  1/1 seqs), K (%s): %7.2f MiB, V (%s): %7.2f MiB\n",
        (float)(memory_size_k + memory_size_v) / (1024.0f * 1024.0f), kv_size, (int) layers.size(),
        ggml_type_name(type_k), (float)memory_size_k / (1024.0f * 1024.0f),
        ggml_type_name(type_v), (float)memory_size_v / (1024.0f * 1024.0f));

    const char * LLAMA_ATTN_ROT_DISABLE = getenv("LLAMA_ATTN_ROT_DISABLE");
    if (!(LLAMA_ATTN_ROT_DISABLE && atoi(LLAMA_ATTN_ROT_DISABLE)) && hparams.n_embd_head % 64 == 0) {
        rot_k = ggml_is_quantized(type_k) ? 64 : 0;
        rot_v = ggml_is_quantized(type_v) ? 64 : 0;
        while (rot_k && hparams.n_embd_head % (2 * rot_k) == 0) { // keys by the largest power of two, values by 64
            rot_k *= 2;
        }
    }
    LLAMA_LOG_INFO("llama_kv_cache: attn_rot_k = %d\nllama_kv_cache: attn_rot_v = %d\n", rot_k > 0, rot_v > 0);

    const char * LLAMA_KV_CACHE_DEBUG = getenv("LLAMA_KV_CACHE_DEBUG");
    debug = LLAMA_KV_CACHE_DEBUG ? atoi(LLAMA_KV_CACHE_DEBUG) : 0;
}

const llama_kv_cache::kv_layer & llama_kv_cache::layer(uint32_t il) const {
    for (const kv_layer & one : layers) {
        if (one.il == il) {
            return one;
        }
    }
    GGML_ABORT("layer %u is not in the cache", il);
}

static char * row_of(const ggml_tensor * tensor, uint32_t cell) {
    return (char *) tensor->data + cell * tensor->nb[1];
}

static void put_row(const ggml_tensor * tensor, uint32_t cell, const std::vector<float> & x) {
    ggml_get_type_traits_cpu(tensor->type)->from_float(x.data(), row_of(tensor, cell), (int64_t) x.size());
}

ggml_tensor * llama_kv_cache::get_k(uint32_t il) const {
    return layer(il).k;
}

std::vector<float> llama_kv_cache::attend(
        uint32_t il, uint32_t cell, std::vector<float> q, std::vector<float> k, std::vector<float> v) {
    const llama_kv_cache_context mctx(this, cell);
    llm_graph_input_attn_kv      inp = { &mctx };
    return llm_graph_context(hparams).compute(inp, std::move(q), std::move(k), std::move(v), (int) il);
}

void llama_kv_cache::store(uint32_t il, uint32_t cell, std::vector<float> kx, std::vector<float> vx) {
    hadamard(kx, rot_k);
    hadamard(vx, rot_v);
    const std::unique_ptr<ggml_context, decltype(&ggml_free)> graph(ggml_init({ 0, nullptr, true }), ggml_free);
    ggml_tensor k_cur = ggml_rows(GGML_TYPE_F32, hparams.n_embd_head, hparams.n_head_kv, kx.data());
    cpy_k(graph.get(), &k_cur, cell, il);
    put_row(layer(il).v, cell, vx);
}

ggml_tensor * llama_kv_cache::build_input_k_rot(ggml_context * ctx) const {
    return rot_k ? ggml_new_tensor_2d(ctx, GGML_TYPE_F32, rot_k, rot_k) : nullptr;
}

// Writes keys of one position (size of a head, KV heads) to a cell.
ggml_tensor * llama_kv_cache::cpy_k(ggml_context * ctx, ggml_tensor * k_cur, uint32_t cell, uint32_t il) const {
    (void) ctx;
    ggml_tensor * k = layer(il).k;

    const int64_t n_embd_head = k_cur->ne[0];
    const int64_t n_head      = k_cur->ne[1];
    ggml_get_type_traits_cpu(k->type)->from_float((const float *) k_cur->data, row_of(k, cell), n_embd_head * n_head);
    return k;
}

std::vector<float> llama_kv_cache::attend(uint32_t il, uint32_t n, std::vector<float> q) const {
    hadamard(q, rot_k);
    const int64_t n_embd_head = hparams.n_embd_head, n_head = (int64_t) q.size() / n_embd_head;
    std::vector<float> out(q.size());
    // cells of all heads lie together, so those of one head are strided rows
    const auto cells = [&](const ggml_tensor * cached) {
        ggml_tensor heads = ggml_rows(cached->type, n_embd_head, n, cached->data);
        heads.nb[2] = heads.nb[1];
        heads.nb[1] = cached->nb[1];
        heads.ne[2] = hparams.n_head_kv;
        return heads;
    };
    ggml_tensor queries = ggml_rows(GGML_TYPE_F32, n_embd_head, 1, q.data());
    queries.ne[2] = n_head;
    ggml_tensor keys = cells(layer(il).k), values = cells(layer(il).v);
    std::vector<uint16_t> hidden(n); // minus infinity where a cell lies before the window
    for (uint32_t cell = 0; n_swa > 0 && cell + n_swa < n; cell++) {
        hidden[cell] = 0xfc00;
    }
    ggml_tensor mask = ggml_rows(GGML_TYPE_F16, n, 1, hidden.data());
    ggml_tensor result = ggml_rows(GGML_TYPE_F32, n_embd_head, n_head, out.data());
    const float scale = 1.0f / sqrtf((float) n_embd_head);
    memcpy(result.op_params, &scale, sizeof scale);
    result.op = GGML_OP_FLASH_ATTN_EXT;
    result.src[0] = &queries;
    result.src[1] = &keys;
    result.src[2] = &values;
    result.src[3] = n_swa > 0 ? &mask : nullptr;

    std::vector<uint8_t> work(ggml_graph_plan(&result, 1).work_size);
    ggml_threadpool pool = { 0 };
    const ggml_compute_params params = { 0, 1, work.data(), work.size(), &pool, false };
    ggml_compute_forward_flash_attn_ext(&params, &result);
    hadamard(out, rot_v);
    return out;
}

// Turns values by the matrix, a row of which has rot->ne[0] values.
static ggml_tensor * mul_mat_hadamard(ggml_context * ctx, ggml_tensor * cur, ggml_tensor * rot) {
    (void) ctx;
    hadamard((float *) cur->data, (size_t) (cur->ne[0] * cur->ne[1]), rot->ne[0]);
    return cur;
}

// Moves keys of one position, as they lie in the cache, by so many positions. Unquantized ones lie there unrotated.
ggml_tensor * llama_kv_cache::build_rope_shift(ggml_context * ctx, ggml_tensor * cur, int32_t shift, ggml_tensor * rot) const {
    const bool    rotated = ggml_is_quantized(cur->type);
    ggml_tensor * tmp;
    tmp = ggml_cast(ctx, cur, GGML_TYPE_F32);
    if (rotated) {
        tmp = mul_mat_hadamard(ctx, tmp, rot);
    }
    for (int64_t head = 0; head < tmp->ne[1]; head++) {
        llama_rope((float *) tmp->data + head * tmp->ne[0], hparams.n_rot(), hparams.freq_base, shift);
    }
    if (rotated) {
        tmp = mul_mat_hadamard(ctx, tmp, rot);
    }
    tmp = ggml_cpy(ctx, tmp, cur);
    return tmp;
}

class llm_graph_input_k_shift {
public:
    ggml_tensor * k_rot = nullptr;
};

// The first values of each head in a cache: a part of each, and what is around it stays.
struct heads_view {
    int64_t  n_embd_part, n_head_kv;
    uint32_t n_cells;
    size_t   nb_head;
};

uint32_t llama_kv_cache::get_size() const {
    return layers.empty() ? 0 : (uint32_t) layers[0].k->ne[1];
}

void llama_kv_cache::build_graph_shift(uint32_t from, uint32_t n_discard, uint32_t n_past) {
    auto inp = std::make_unique<llm_graph_input_k_shift>();

    ggml_tensor matrix = ggml_rows(GGML_TYPE_F32, rot_k, rot_k, nullptr); // nowhere written down
    inp->k_rot         = rot_k ? &matrix : nullptr;

    for (const auto & layer : layers) {
        const int64_t n_head_kv     = hparams.n_head_kv;
        const auto    n_rot         = (int64_t) hparams.n_rot();
        const auto    n_embd_head_k = hparams.n_embd_head;
        const auto    n_embd_nope   = hparams.n_embd_head - hparams.n_embd_head; // RoPE turns the first values of a head

        const heads_view k = {
                n_rot, n_head_kv, get_size()*n_stream,
                ggml_row_size(layer.k->type, n_embd_head_k) };
        GGML_ASSERT(n_embd_nope == 0);
        for (uint32_t to = from; to + n_discard < n_past && to < k.n_cells; to++) {
            memmove(row_of(layer.k, to), row_of(layer.k, to + n_discard), layer.k->nb[1]);
            ggml_tensor heads = ggml_rows(layer.k->type, k.n_embd_part, n_head_kv, row_of(layer.k, to));
            heads.nb[1]    = k.nb_head;
            heads.view_src = layer.k;
            const std::unique_ptr<ggml_context, decltype(&ggml_free)> graph(ggml_init({ 0, nullptr, true }), ggml_free);
            ggml_cgraph * nodes = ggml_new_graph(graph.get());
            ggml_build_forward_expand(nodes, build_rope_shift(graph.get(), &heads, -(int32_t) n_discard, inp->k_rot));
            ggml_backend_graph_compute(ggml_backend_dev_init(ggml_backend_dev_get(0), nullptr), nodes);
        }
    }
}

void llama_kv_cache::shift(uint32_t from, uint32_t n_discard, uint32_t n_past) {
    build_graph_shift(from, n_discard, n_past);
    for (const kv_layer & one : layers) {
        memmove(row_of(one.v, from), row_of(one.v, from + n_discard), (n_past - from - n_discard) * one.v->nb[1]);
    }
}

void llama_io_read_i::read(void * to, size_t size) {
    if (size > data.size() - at) {
        throw std::runtime_error("the state ends early");
    }
    memcpy(to, data.data() + at, size);
    at += size;
}

template <typename... T> static void put(llama_io_write_i & io, T... numbers) {
    (io.write(&numbers, sizeof numbers), ...);
}

// The numbers that `put` wrote; whether they are the same ones.
template <typename... T> static bool same(llama_io_read_i & io, T... numbers) {
    const auto one = [&](auto number) {
        auto found = number;
        io.read(&found, sizeof found);
        return found == number;
    };
    return (one(numbers) & ...);
}

std::string llama_kv_cache::save(uint32_t n) const {
    llama_io_write_i io;
    put(io, (uint32_t) 1, n); // streams, cells
    for (uint32_t cell = 0; cell < n; cell++) {
        put(io, (int32_t) cell, (uint32_t) 1, (int32_t) 0); // of one sequence, which is number 0
    }
    state_write_data(io, n);
    return io.data;
}

void llama_kv_cache::state_write_data(llama_io_write_i & io, uint32_t n) const {
    const uint32_t v_trans = 0; // it is not
    const uint32_t n_layer = layers.size();
    put(io, v_trans, n_layer);
    const auto add = [&](const ggml_tensor * tensor) {
        put(io, (int32_t) tensor->type, (uint64_t) tensor->nb[1]);
        io.write(tensor->data, tensor->nb[1] * n);
    };
    for (const kv_layer & one : layers) {
        add(one.k);
    }
    for (const kv_layer & one : layers) {
        add(one.v);
    }
}

size_t llama_kv_cache::load(const std::string & state) {
    llama_io_read_i io = { state };
    uint32_t        streams, n;
    io.read(&streams, sizeof streams);
    io.read(&n, sizeof n);
    bool fits = streams == 1 && n <= get_size();
    for (uint32_t cell = 0; fits && cell < n; cell++) {
        fits = same(io, (int32_t) cell, (uint32_t) 1, (int32_t) 0);
    }
    return fits && state_read_data(io, n) ? io.at : 0;
}

bool llama_kv_cache::state_read_data(llama_io_read_i & io, uint32_t n) const {
    uint32_t v_trans, n_layer;
    io.read(&v_trans, sizeof(v_trans));
    io.read(&n_layer, sizeof(n_layer));
    if (v_trans != 0 || n_layer != layers.size()) {
        LLAMA_LOG_ERROR("%s: the state is of %u layers, the cache has %zu\n", __func__, n_layer, layers.size());
        return false;
    }
    const auto take = [&](ggml_tensor * tensor) {
        if (!same(io, (int32_t) tensor->type, (uint64_t) tensor->nb[1])) {
            LLAMA_LOG_ERROR("%s: the state is of other types\n", __func__);
            return false;
        }
        io.read(tensor->data, tensor->nb[1] * n);
        return true;
    };
    for (const kv_layer & one : layers) {
        if (!take(one.k)) {
            return false;
        }
    }
    for (const kv_layer & one : layers) {
        if (!take(one.v)) {
            return false;
        }
    }
    return true;
}

uint32_t llama_kv_cache_context::get_n_kv() const {
    return cell + 1;
}
