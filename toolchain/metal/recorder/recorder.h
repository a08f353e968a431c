// The device that a tree's Metal host code is compiled against here, where there is no Metal.
#pragma once

#include "ggml-metal-device.h"

struct ggml_metal_device {
    struct ggml_metal_device_props props;
};

#ifdef __cplusplus
extern "C"
#endif
// What the tree's own backend allocates for a result: host.py makes it of the function that the backend has for that.
size_t recorder_alloc_size(const struct ggml_tensor * op);
