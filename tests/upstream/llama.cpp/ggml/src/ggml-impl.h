// The log, and conversions between half and single precision (IEEE 754, rounding to nearest even).
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define GGML_LOG_ERROR(...) fprintf(stderr, __VA_ARGS__)

static inline float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t) (half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t mantissa = half & 0x3ff;
    if (exponent == 0) {
        const float value = (float) mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
        return (uint16_t) (sign | 0x7e00); // NaN
    }
    if (magnitude >= 0x477ff000) {
        return (uint16_t) (sign | 0x7c00); // from 65520 on: infinity
    }
    if (magnitude < 0x38800000) { // below 2^-14: subnormal in half precision
        return (uint16_t) (sign | (uint32_t) rintf(fabsf(value) * 0x1p24f));
    }
    return (uint16_t) (sign | ((magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13));
}
