// The reference quantizers and dequantizers of the TurboQuant cache types; see ggml-turbo.h for the formats.

#include "ggml-turbo.h"

#include <math.h>
#include <string.h>

// Fused multiply-add would make the choice between two nearly equal radii depend on the platform.
#if defined(__clang__)
#    pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#    pragma GCC optimize("fp-contract=off")
#endif

// Lloyd-Max levels of N(0,1), times the scale below, rounded.
const int8_t ggml_turbo4_levels[16] = { -104, -79, -62, -48, -36, -25, -15, -5, 5, 15, 25, 36, 48, 62, 79, 104 };
const int8_t ggml_turbo3_levels[8]  = { -114, -71, -40, -13, 13, 40, 71, 114 };
const int8_t ggml_turbo2_levels[4]  = { -90, -27, 27, 90 };

// A codebook with what the encoder needs: the scale is the level that stands for one standard deviation.
typedef struct {
    const int8_t * levels;
    int            count;
    float          scale;
} codebook;

static const codebook turbo4_codebook = { ggml_turbo4_levels, 16, 38.2f };
static const codebook turbo3_codebook = { ggml_turbo3_levels, 8, 52.9f };
static const codebook turbo2_codebook = { ggml_turbo2_levels, 4, 59.6f };

// The decoder sees only radius * level, so the encoder may choose any radius. The best one for a block is mostly not
// the one that matches its norm: these multiples of it are tried, and each is refined by least squares.
static const float radius_factors[] = {
    0.75f, 0.80f, 0.85f, 0.89f, 0.93f, 0.97f, 1.00f, 1.04f, 1.08f, 1.13f, 1.18f, 1.24f, 1.30f,
};

#define LANES 16
#define HALF_MAX 65504.0f

float ggml_turbo_half_to_float(uint16_t half) {
    const uint32_t sign     = (uint32_t) (half & 0x8000) << 16;
    const uint32_t exponent = (half >> 10) & 0x1f;
    const uint32_t mantissa = half & 0x3ff;
    float          value;
    if (exponent == 0) {
        value = (float) mantissa * 0x1p-24f;
    } else {
        const uint32_t bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
        memcpy(&value, &bits, sizeof(value));
    }
    return sign ? -value : value;
}

uint16_t ggml_turbo_float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const uint16_t sign = (uint16_t) ((bits >> 16) & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000u) {
        return sign | 0x7e00;
    }
    if (bits >= 0x477ff000u) {  // 65520 and above round to infinity
        return sign | 0x7c00;
    }
    if (bits < 0x38800000u) {  // subnormal: adding 2^-1 * 2^-14 * 2^... aligns the mantissa and rounds to even
        float magnitude;
        memcpy(&magnitude, &bits, sizeof(magnitude));
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof(bits));
        return sign | (uint16_t) (bits - 0x3f000000u);
    }
    const uint32_t odd = (bits >> 13) & 1;
    return sign | (uint16_t) ((bits + 0x0fff + odd - 0x38000000u) >> 13);
}

// Copy a block, with NaN as zero and magnitudes limited to what the largest radius can express.
static void sanitize(const codebook * book, const float * x, float * v) {
    const float limit = HALF_MAX * (float) book->levels[book->count - 1];
    for (int j = 0; j < QK_TURBO; ++j) {
        const float a = x[j] == x[j] ? x[j] : 0.0f;
        v[j]          = a > limit ? limit : a < -limit ? -limit : a;
    }
}

// Sum in a fixed order that also vectorizes.
static float sum_lanes(const float * acc) {
    float sum = 0.0f;
    for (int l = 0; l < LANES; ++l) {
        sum += acc[l];
    }
    return sum;
}

static float norm(const float * v) {
    float acc[LANES] = { 0 };
    for (int j = 0; j < QK_TURBO; j += LANES) {
        for (int l = 0; l < LANES; ++l) {
            acc[l] += v[j + l] * v[j + l];
        }
    }
    return sqrtf(sum_lanes(acc));
}

// The nearest level of every v[j] / d: the index counts the midpoints between levels that lie below.
static void assign(const codebook * book, const float * v, float d, uint8_t * index) {
    const float inverse = 1.0f / d;
    int32_t     below[QK_TURBO] = { 0 };
    for (int m = 1; m < book->count; ++m) {
        const float midpoint = 0.5f * (float) (book->levels[m - 1] + book->levels[m]);
        for (int j = 0; j < QK_TURBO; ++j) {
            below[j] += v[j] * inverse > midpoint;
        }
    }
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] = (uint8_t) below[j];
    }
}

// Least-squares radius for given indices, and in *gain how much of the block's energy it explains.
static float fit(const codebook * book, const float * v, const uint8_t * index, float * gain) {
    float   dot[LANES] = { 0 };
    int32_t energy     = 0;
    for (int j = 0; j < QK_TURBO; j += LANES) {
        for (int l = 0; l < LANES; ++l) {
            const int level = book->levels[index[j + l]];
            dot[l] += v[j + l] * (float) level;
            energy += level * level;
        }
    }
    const float xc = sum_lanes(dot);
    *gain          = xc * (xc / (float) energy);
    return xc / (float) energy;
}

// Indices and FP16 radius of a block. A block too small for FP16 gets radius zero and indices of zero.
static uint16_t encode(const codebook * book, const float * x, uint8_t * index) {
    float v[QK_TURBO];
    sanitize(book, x, v);
    const float nominal = norm(v) * 0.125f / book->scale;  // 0.125 = 1 / sqrt(64)
    float       radius = 0.0f, best = -1.0f;
    if (nominal > 0.0f) {
        for (size_t f = 0; f < sizeof(radius_factors) / sizeof(radius_factors[0]); ++f) {
            float gain;
            const float trial = nominal * radius_factors[f];
            if (!(trial > 0x1p-126f)) {
                continue;
            }
            assign(book, v, trial, index);
            const float fitted = fit(book, v, index, &gain);
            if (gain > best) {
                best   = gain;
                radius = fitted;
            }
        }
    }
    const uint16_t half = ggml_turbo_float_to_half(radius > HALF_MAX ? HALF_MAX : radius);
    if (half == 0) {
        memset(index, 0, QK_TURBO);
    } else {
        assign(book, v, ggml_turbo_half_to_float(half), index);
    }
    return half;
}

void ggml_turbo4_quantize_row(const float * x, void * y, int64_t k) {
    uint8_t index[QK_TURBO];
    for (block_turbo4 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        b->d = encode(&turbo4_codebook, x, index);
        for (int j = 0; j < 32; ++j) {
            b->qs[j] = (uint8_t) (index[j] | index[j + 32] << 4);
        }
    }
}

void ggml_turbo3_quantize_row(const float * x, void * y, int64_t k) {
    uint8_t index[QK_TURBO];
    for (block_turbo3 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        b->d = encode(&turbo3_codebook, x, index);
        memset(b->qs, 0, sizeof(b->qs));
        memset(b->qh, 0, sizeof(b->qh));
        for (int j = 0; j < QK_TURBO; ++j) {
            b->qs[j % 16] |= (uint8_t) ((index[j] & 3) << 2 * (j / 16));
            b->qh[j % 8] |= (uint8_t) ((index[j] >> 2) << j / 8);
        }
    }
}

void ggml_turbo2_quantize_row(const float * x, void * y, int64_t k) {
    uint8_t index[QK_TURBO];
    for (block_turbo2 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        b->d = encode(&turbo2_codebook, x, index);
        memset(b->qs, 0, sizeof(b->qs));
        for (int j = 0; j < QK_TURBO; ++j) {
            b->qs[j % 16] |= (uint8_t) (index[j] << 2 * (j / 16));
        }
    }
}

void ggml_turbo4_indices(const block_turbo4 * x, uint8_t * index) {
    for (int j = 0; j < 32; ++j) {
        index[j]      = x->qs[j] & 15;
        index[j + 32] = x->qs[j] >> 4;
    }
}

void ggml_turbo3_indices(const block_turbo3 * x, uint8_t * index) {
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] = (uint8_t) ((x->qs[j % 16] >> 2 * (j / 16) & 3) | (x->qh[j % 8] >> j / 8 & 1) << 2);
    }
}

void ggml_turbo2_indices(const block_turbo2 * x, uint8_t * index) {
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] = x->qs[j % 16] >> 2 * (j / 16) & 3;
    }
}

static void decode(const int8_t * levels, uint16_t half, const uint8_t * index, float * y) {
    const float d = ggml_turbo_half_to_float(half);
    for (int j = 0; j < QK_TURBO; ++j) {
        y[j] = d * (float) levels[index[j]];
    }
}

void ggml_turbo4_dequantize_row(const void * x, float * y, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo4 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo4_indices(b, index);
        decode(ggml_turbo4_levels, b->d, index, y);
    }
}

void ggml_turbo3_dequantize_row(const void * x, float * y, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo3 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo3_indices(b, index);
        decode(ggml_turbo3_levels, b->d, index, y);
    }
}

void ggml_turbo2_dequantize_row(const void * x, float * y, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo2 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo2_indices(b, index);
        decode(ggml_turbo2_levels, b->d, index, y);
    }
}

void ggml_turbo4_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo4 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo4_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo4_levels[index[j]];
        }
        *radius++ = ggml_turbo_half_to_float(b->d);
    }
}

void ggml_turbo3_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo3 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo3_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo3_levels[index[j]];
        }
        *radius++ = ggml_turbo_half_to_float(b->d);
    }
}

void ggml_turbo2_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo2 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo2_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo2_levels[index[j]];
        }
        *radius++ = ggml_turbo_half_to_float(b->d);
    }
}

#ifndef GGML_TURBO_STANDALONE

bool ggml_turbo_validate_row(enum ggml_type type, const void * data, size_t nbytes) {
    const size_t size = ggml_type_size(type);
    if (nbytes % size != 0) {
        return false;
    }
    for (const uint8_t * block = data, *end = block + nbytes; block < end; block += size) {
        uint16_t d;
        memcpy(&d, block, sizeof(d));
        if ((d & 0x7c00) == 0x7c00) {  // infinity or NaN
            return false;
        }
    }
    return true;
}

size_t ggml_turbo_quantize(enum ggml_type type, const float * src, void * dst, int64_t nrows, int64_t n_per_row) {
    const int64_t k = nrows * n_per_row;
    switch (type) {
        case GGML_TYPE_TURBO4: ggml_turbo4_quantize_row(src, dst, k); break;
        case GGML_TYPE_TURBO3: ggml_turbo3_quantize_row(src, dst, k); break;
        case GGML_TYPE_TURBO2: ggml_turbo2_quantize_row(src, dst, k); break;
        default: GGML_ABORT("%s is not a turbo type", ggml_type_name(type));
    }
    return (size_t) nrows * ggml_row_size(type, n_per_row);
}

#endif
