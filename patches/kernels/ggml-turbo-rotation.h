// The rotation of a TurboQuant cache, for a tree whose own cache has none: K and Q by one Walsh-Hadamard matrix, V by
// another, so that a product of two rotated vectors is that of the vectors themselves. The matrices are orthonormal and
// their own inverses, and the same that llama.cpp uses from b8619 on: for K of the largest power of two that divides a
// head's size, for V of 64.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// Whether a cache of this type stores rotated vectors.
GGML_API bool ggml_turbo_turns(enum ggml_type type);

// Add to a graph the rotation of x, whose first dimension is a head, as K or V of a cache with this tensor (or a view of
// it). For a tensor of another type x itself is returned. To turn a second time is to turn back.
GGML_API struct ggml_tensor * ggml_turbo_turn_k(struct ggml_context * ctx, const struct ggml_tensor * cache, struct ggml_tensor * x);
GGML_API struct ggml_tensor * ggml_turbo_turn_v(struct ggml_context * ctx, const struct ggml_tensor * cache, struct ggml_tensor * x);

#ifdef __cplusplus
}
#endif
