// The device that a tree's Metal host code is compiled against here, where there is no Metal.
#pragma once

#include "ggml-metal-device.h"

struct ggml_metal_device {
    struct ggml_metal_device_props props;
};
