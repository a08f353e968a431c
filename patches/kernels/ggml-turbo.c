// The portable functions of the TurboQuant cache types; see ggml-turbo.h for the formats.

#include "ggml-turbo-codec.h"

// Trained on N(0,1) with the encoder as it is, times the factor below 127 / highest that rounding hurts least. Level k
// belongs to subset k % 4, so the neighbours within a subset are four levels apart.
const int8_t ggml_turbo4_levels[32] = {
    -116, -95, -80, -69, -60, -52, -46, -40, -34, -29, -24, -20, -15, -11, -6, -2,
    2, 6, 11, 15, 20, 24, 29, 34, 40, 46, 52, 60, 69, 80, 95, 116,
};
const int8_t ggml_turbo3_levels[16] = {
    -94, -66, -49, -37, -27, -19, -11, -4, 4, 11, 19, 27, 37, 49, 66, 94,
};
const int8_t ggml_turbo2_levels[8] = {
    -92, -51, -28, -9, 9, 28, 51, 92,
};

float ggml_turbo_half_to_float(uint16_t half) {
    return turbo_half_to_float(half);
}

uint16_t ggml_turbo_float_to_half(float value) {
    return turbo_float_to_half(value);
}

void ggml_turbo4_quantize_row(const float * x, void * y, int64_t k) {
    for (block_turbo4 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        turbo_quantize_block_4(x, b);
    }
}

void ggml_turbo3_quantize_row(const float * x, void * y, int64_t k) {
    for (block_turbo3 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        turbo_quantize_block_3(x, b);
    }
}

void ggml_turbo2_quantize_row(const float * x, void * y, int64_t k) {
    for (block_turbo2 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        turbo_quantize_block_2(x, b);
    }
}

static int bit_of(const uint8_t * plane, int j) {
    return plane[j % 8] >> j / 8 & 1;
}

static int pair_of(const uint8_t * pairs, int j) {
    return pairs[j % 16] >> 2 * (j / 16) & 3;
}

// Bits 0 and 1 of the indices.
static void trellis_bits(const uint8_t * plane, uint8_t * index) {
    const uint64_t path = turbo_load_plane(plane), bit0 = turbo_bit0(path), bit1 = turbo_bit1(path);
    for (int j = 0; j < QK_TURBO; ++j) {
        const int t = turbo_position(j);
        index[j]    = (uint8_t) ((bit1 >> t & 1) << 1 | (bit0 >> t & 1));
    }
}

void ggml_turbo4_indices(const block_turbo4 * x, uint8_t * index) {
    trellis_bits(x->path, index);
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] |= (uint8_t) (pair_of(x->qs, j) << 2 | bit_of(x->qh, j) << 4);
    }
}

void ggml_turbo3_indices(const block_turbo3 * x, uint8_t * index) {
    trellis_bits(x->path, index);
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] |= (uint8_t) (pair_of(x->qs, j) << 2);
    }
}

void ggml_turbo2_indices(const block_turbo2 * x, uint8_t * index) {
    trellis_bits(x->path, index);
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] |= (uint8_t) (bit_of(x->qs, j) << 2);
    }
}

void ggml_turbo4_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo4 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo4_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo4_levels[index[j]];
        }
        *radius++ = turbo_half_to_float(b->d);
    }
}

void ggml_turbo3_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo3 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo3_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo3_levels[index[j]];
        }
        *radius++ = turbo_half_to_float(b->d);
    }
}

void ggml_turbo2_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo2 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo2_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo2_levels[index[j]];
        }
        *radius++ = turbo_half_to_float(b->d);
    }
}

void ggml_turbo4_dequantize_row(const void * x, float * y, int64_t k) {
    int8_t level[QK_TURBO];
    float  radius;
    for (const block_turbo4 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo4_levels_row(b, level, &radius, QK_TURBO);
        for (int j = 0; j < QK_TURBO; ++j) {
            y[j] = radius * (float) level[j];
        }
    }
}

void ggml_turbo3_dequantize_row(const void * x, float * y, int64_t k) {
    int8_t level[QK_TURBO];
    float  radius;
    for (const block_turbo3 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo3_levels_row(b, level, &radius, QK_TURBO);
        for (int j = 0; j < QK_TURBO; ++j) {
            y[j] = radius * (float) level[j];
        }
    }
}

void ggml_turbo2_dequantize_row(const void * x, float * y, int64_t k) {
    int8_t level[QK_TURBO];
    float  radius;
    for (const block_turbo2 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo2_levels_row(b, level, &radius, QK_TURBO);
        for (int j = 0; j < QK_TURBO; ++j) {
            y[j] = radius * (float) level[j];
        }
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
