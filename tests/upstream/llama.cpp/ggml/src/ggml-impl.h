// Conversions between half and single precision, IEEE 754, rounding to nearest even.
#pragma once

#include "ggml.h"

#include <math.h>
#include <string.h>

#ifndef MIN
#    define MIN(a, b) ((a) < (b) ? (a) : (b))
#endif
#ifndef MAX
#    define MAX(a, b) ((a) > (b) ? (a) : (b))
#endif

static inline float ggml_compute_fp16_to_fp32(ggml_fp16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t exponent = (h >> 10) & 0x1f;
    const uint32_t mantissa = h & 0x3ff;
    if (exponent == 0) {
        const float value = (float) mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline ggml_fp16_t ggml_compute_fp32_to_fp16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return (ggml_fp16_t) (sign | 0x7e00); // NaN
    }
    if (magnitude >= 0x477ff000) {
        return (ggml_fp16_t) (sign | 0x7c00); // from 65520 on: infinity
    }
    if (magnitude < 0x38800000) { // below 2^-14: subnormal in half precision
        return (ggml_fp16_t) (sign | (uint32_t) rintf(fabsf(f) * 0x1p24f));
    }
    return (ggml_fp16_t) (sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13));
}

#define GGML_FP16_TO_FP32(x) ggml_compute_fp16_to_fp32(x)
#define GGML_FP32_TO_FP16(x) ggml_compute_fp32_to_fp16(x)
