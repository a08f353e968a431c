#pragma once

#include "ggml-metal-impl.h"

#include <metal_stdlib>

using namespace metal;
