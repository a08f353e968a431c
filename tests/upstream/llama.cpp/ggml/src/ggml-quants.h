// Every type's conversion to floats and, the reference, from them.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GGML_CODEC(type)                                                      \
    GGML_API void ggml_decode_##type(const void * from, float * to, int64_t n); \
    GGML_API void ggml_encode_##type(const float * from, void * to, int64_t n)

GGML_CODEC(f32);
GGML_CODEC(f16);
GGML_CODEC(q4_0);
GGML_CODEC(q8_0);

#ifdef __cplusplus
}
#endif
