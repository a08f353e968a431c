// The TurboQuant cache types on Metal, as the backend's own files see them: three questions, and one way to encode an
// operation. Everything is in ggml-metal-turbo-ops.h, which ggml-metal-ops.cpp includes.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_metal_device;

// Whether an operation reads or writes one of the types.
bool ggml_metal_turbo_op(const struct ggml_tensor * op);

// Whether a device can do such an operation. The first question about a device compiles our kernels for it; if they do
// not compile, or the device has no SIMD-group matrices, the answer is no from then on, and the log says why.
bool ggml_metal_turbo_supports_op(struct ggml_metal_device * dev, const struct ggml_tensor * op);

// Bytes that the result of such an operation takes, with the work memory behind it.
size_t ggml_metal_turbo_alloc_size(const struct ggml_tensor * op);

#ifdef __cplusplus
}
#endif
