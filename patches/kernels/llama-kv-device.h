// Where a cache can lie whose types not every device computes with.
#pragma once

#include "ggml-backend.h"
#include "ggml.h"

#include <cstdint>

// Whether the device of a layer stores the types of its cache and computes attention over them, which it does by products
// of whole matrices where V lies transposed. If not, the cache of the
// layer has to lie in the memory of the CPU: a tensor cannot be written where no backend does it. The log says so once for
// each device. Always true of types that are upstream's own.
bool llama_kv_device_holds(
        ggml_backend_dev_t dev, ggml_type type_k, ggml_type type_v, uint32_t n_embd_head_k, uint32_t n_embd_head_v, bool v_trans);
