#import "ggml-metal-device.h"

#import "ggml-metal-impl.h"

#include <Metal/Metal.h>

// What is told of a device when it is opened; the miniature opens none, as it has nothing to run kernels with.
struct ggml_metal_device {
    id<MTLDevice> device;

    struct ggml_metal_device_props props;
};

bool ggml_metal_device_supports_op(ggml_metal_device_t dev, const struct ggml_tensor * op) {
    const bool has_simdgroup_mm = dev->props.has_simdgroup_mm;

    switch (op->op) {
        case GGML_OP_NONE:
            return true;
        case GGML_OP_GET_ROWS:
            return op->src[0]->type == GGML_TYPE_Q8_0;
        case GGML_OP_SET_ROWS:
            return op->src[0]->type == GGML_TYPE_F32 && op->type == GGML_TYPE_F32;
        case GGML_OP_CPY:
            return op->src[0]->type == GGML_TYPE_Q8_0 && op->type == GGML_TYPE_F32;
        case GGML_OP_FLASH_ATTN_EXT:
            if (op->src[1]->type != op->src[2]->type || op->src[1]->ne[0] != op->src[2]->ne[0]) {
                return false;
            }
            switch (op->src[1]->type) {
                case GGML_TYPE_F16:
                    return has_simdgroup_mm && (op->src[1]->ne[0] == 64 || op->src[1]->ne[0] == 128 || op->src[1]->ne[0] == 512);
                case GGML_TYPE_Q8_0:
                    return has_simdgroup_mm && (op->src[1]->ne[0] == 64 || op->src[1]->ne[0] == 128);
                default:
                    return false;
            }
        default:
            return false;
    }
}
