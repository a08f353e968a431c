// The threads that compute a tensor together.
#pragma once

#include "ggml-cpu.h"

#ifdef __cplusplus
extern "C" {
#endif

// A counter of pieces of work, which the threads share.
struct ggml_threadpool {
    int chunk;
};

// Thread ith of nth, and wsize bytes to work in.
struct ggml_compute_params {
    int                      ith, nth;
    void *                   wdata;
    size_t                   wsize;
    struct ggml_threadpool * threadpool;
    bool                     use_ref; // compute as simply as possible, for comparisons
};

// The miniature has one thread, which need not wait for others.
void ggml_barrier(struct ggml_threadpool * pool);
void ggml_threadpool_chunk_set(struct ggml_threadpool * pool, int value);
int  ggml_threadpool_chunk_add(struct ggml_threadpool * pool, int value); // the value before

#ifdef __cplusplus
}
#endif
