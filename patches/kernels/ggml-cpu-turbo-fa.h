// Flash attention on the CPU for caches with a TurboQuant type.
//
// One decode of a tile of K and V serves all the query rows of a tile: the heads of a group (GQA) times the tokens of a
// prompt. Keys are multiplied as integers where the type has integer levels, with queries rounded to int8 per block as
// for any quantized type; values are summed in f32.
//
// The core below knows nothing of ggml's tensors; ggml_cpu_turbo_flash_attn_ext adapts it to the operation.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How to decode n values of a row. `levels` and `floats` give the same values: scale[i / block] * levels[i].
struct ggml_turbo_codec {
    int block;  // values that share a scale: 32 or 64; 0 if there are no levels
    void (*levels)(const void * row, int8_t * levels, float * scale, int64_t n);
    void (*floats)(const void * row, float * values, int64_t n);
};

// A tensor of rows, by the strides in bytes.
struct ggml_turbo_rows {
    char * data;
    size_t row, head, batch;
};

// softmax(scale * Q K^T + mask) V. K and V have n_kv rows for each of kv_heads and kv_batches; Q and the result n_q rows
// for each of heads and batches, which are multiples of those.
struct ggml_turbo_attention {
    int64_t key_size, value_size;  // of a head: multiples of 64
    int64_t n_q, n_kv, heads, kv_heads, batches, kv_batches;

    struct ggml_turbo_rows  q, k, v, out;  // q and out are f32
    struct ggml_turbo_codec k_codec, v_codec;

    struct ggml_turbo_rows mask;  // f16, added to the scores; data is NULL for none
    int64_t                mask_heads, mask_batches;

    const float * sinks;  // a further logit for each head, without a value; or NULL
    float         scale, softcap, max_bias;

    // How the work is divided, see ggml_turbo_attention_plan: `items` tiles of up to `tile_rows` query rows, with the
    // keys that they see in up to `splits` parts.
    int64_t items, splits, tile_rows;
    size_t  scratch_bytes, partial_bytes;  // of work memory: for each thread, and for all together
};

// Fill in how to divide the work among a number of threads. Memory never shrinks as threads are added.
void ggml_turbo_attention_plan(struct ggml_turbo_attention * fa, int threads);

// Work number `job` of items * splits. scratch: scratch_bytes of the calling thread's own; partials: shared. Both are
// aligned to 64 bytes.
void ggml_turbo_attention_job(const struct ggml_turbo_attention * fa, int64_t job, char * scratch, char * partials);

// When all jobs are done: join the parts of row number `row` of items * tile_rows. There is nothing to join when splits
// is 1.
void ggml_turbo_attention_join(const struct ggml_turbo_attention * fa, int64_t row, char * partials);

#ifndef GGML_TURBO_STANDALONE

struct ggml_compute_params;
struct ggml_tensor;

// Compute the operation, if it is one that is served here: K or V of a turbo type, and enough work memory. All threads
// of a graph come to the same answer.
bool ggml_cpu_turbo_flash_attn_ext(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// Bytes of work memory for the operation; 0 if it is not served here.
size_t ggml_cpu_turbo_flash_attn_ext_wsize(const struct ggml_tensor * dst, int n_tasks);

#endif

#ifdef __cplusplus
}
#endif
