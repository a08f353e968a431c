// Flash attention of patches/kernels on plain arrays: [batch][head][token][size], values in the types below.

#include "ggml-cpu-turbo-fa.h"
#include "ggml-turbo.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

static void f32(const void * row, float * values, int64_t n) {
    memcpy(values, row, n * sizeof(float));
}

static const struct {
    ggml_turbo_codec codec;
    double           bytes;  // of a value
} types[] = {
    { { 0, nullptr, f32 }, 4 },
#define TYPE(ID, id, RAW) { { QK_TURBO, ggml_##id##_levels_row, ggml_##id##_dequantize_row }, sizeof(block_##id) / 64.0 },
    TURBO_TYPES(TYPE)
};

static ggml_turbo_rows rows(const void * data, double size, int64_t tokens, int64_t heads) {
    const size_t row = (size_t) size;
    return { (char *) data, row, row * tokens, row * tokens * heads };
}

// numbers: key_size, value_size, n_q, n_kv, heads, kv_heads, batches, kv_batches, mask_heads, mask_batches, type of keys,
// type of values, threads. parameters: scale, softcap, max_bias. The parts that the keys were divided into.
extern "C" int64_t attend(const int64_t * numbers, const float * parameters, const void * q, const void * k, const void * v,
                          const void * mask, const float * sinks, float * out) {
    ggml_turbo_attention fa = {};
    fa.key_size     = numbers[0];
    fa.value_size   = numbers[1];
    fa.n_q          = numbers[2];
    fa.n_kv         = numbers[3];
    fa.heads        = numbers[4];
    fa.kv_heads     = numbers[5];
    fa.batches      = numbers[6];
    fa.kv_batches   = numbers[7];
    fa.mask_heads   = numbers[8];
    fa.mask_batches = numbers[9];
    fa.k_codec      = types[numbers[10]].codec;
    fa.v_codec      = types[numbers[11]].codec;
    fa.q            = rows(q, 4.0 * fa.key_size, fa.n_q, fa.heads);
    fa.k            = rows(k, types[numbers[10]].bytes * fa.key_size, fa.n_kv, fa.kv_heads);
    fa.v            = rows(v, types[numbers[11]].bytes * fa.value_size, fa.n_kv, fa.kv_heads);
    fa.out          = rows(out, 4.0 * fa.value_size, fa.n_q, fa.heads);
    fa.mask         = rows(mask, 2.0 * fa.n_kv, fa.n_q, fa.mask_heads);
    fa.sinks        = sinks;
    fa.scale        = parameters[0];
    fa.softcap      = parameters[1];
    fa.max_bias     = parameters[2];

    const int threads = (int) numbers[12];
    ggml_turbo_attention_plan(&fa, threads);
    const size_t bytes = fa.scratch_bytes * threads + fa.partial_bytes;
    char *       work  = (char *) aligned_alloc(64, (bytes + 63) / 64 * 64);
    memset(work, 0xff, bytes);  // NaN wherever something is read that was not written
    char * const partials = work + fa.scratch_bytes * threads;

    std::atomic<int64_t>     next{ 0 };
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; ++i) {
        pool.emplace_back([&, i] {
            for (int64_t job; (job = next++) < fa.items * fa.splits;) {
                ggml_turbo_attention_job(&fa, job, work + fa.scratch_bytes * i, partials);
            }
        });
    }
    for (std::thread & thread : pool) {
        thread.join();
    }
    for (int64_t row = 0; fa.splits > 1 && row < fa.items * fa.tile_rows; ++row) {
        ggml_turbo_attention_join(&fa, row, partials);
    }
    free(work);
    return fa.splits;
}

#ifdef ATTEND_PROGRAM

// The arguments on stdin, each after its number of bytes; those of out are to be filled. The result on stdout.
int main() {
    std::vector<char> arguments[8];
    for (std::vector<char> & argument : arguments) {
        int64_t bytes;
        if (fread(&bytes, sizeof(bytes), 1, stdin) != 1) {
            return 1;
        }
        argument.resize(bytes);
        if (fread(argument.data(), 1, bytes, stdin) != (size_t) bytes) {
            return 1;
        }
    }
    const auto given = [&](int i) { return arguments[i].empty() ? nullptr : arguments[i].data(); };
    std::vector<char> & out = arguments[7];
    attend((const int64_t *) given(0), (const float *) given(1), given(2), given(3), given(4), given(5),
           (const float *) given(6), (float *) out.data());
    return fwrite(out.data(), 1, out.size(), stdout) != out.size();
}

#endif
