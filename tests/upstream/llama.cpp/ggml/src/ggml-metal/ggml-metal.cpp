#include "ggml-metal-device.h"
#include "ggml-metal-ops.h"

#include "ggml-backend.h"

// What a result takes in a buffer of the device; attention leaves its parts behind the result.
static size_t ggml_backend_metal_buffer_type_get_alloc_size(ggml_backend_buffer_type_t buft, const ggml_tensor * tensor) {
    size_t bytes = ggml_nbytes(tensor);
    switch (tensor->op) {
        case GGML_OP_FLASH_ATTN_EXT:
            bytes += ggml_metal_op_flash_attn_ext_extra_tmp(tensor);
            break;
        default:
            break;
    }
    (void) buft;
    return bytes;
}

size_t ggml_backend_metal_alloc_size(ggml_backend_buffer_type_t buft, const ggml_tensor * tensor) {
    return ggml_backend_metal_buffer_type_get_alloc_size(buft, tensor);
}
