// The portable functions of the TurboQuant cache types; see ggml-turbo.h for the formats.

#include "ggml-turbo-encode.h"

const int8_t ggml_turbo4_levels[2][32] = { TURBO4_LEVELS, TURBO4_LEVELS2 };
const int8_t ggml_turbo3_levels[2][16] = { TURBO3_LEVELS, TURBO3_LEVELS2 };
const int8_t ggml_turbo2_levels[2][8]  = { TURBO2_LEVELS, TURBO2_LEVELS2 };

float ggml_turbo_half_to_float(uint16_t half) {
    return turbo_half_to_float(half);
}

uint16_t ggml_turbo_float_to_half(float value) {
    return turbo_float_to_half(value);
}

// Both codebooks of a type with their tables.
typedef struct {
    turbo_codebook book[2];
    turbo_tables   tables[2];
} encoder;

static void fill(encoder * e) {
    turbo_fill(&e->book[0], &e->tables[0]);
    turbo_fill(&e->book[1], &e->tables[1]);
}

// The best of the wider sets of radii, and the codebook that it belongs to. The block is left as that one takes it.
static int16_t judge_again(const encoder * e, int16_t * v, int * which) {
    uint32_t least = 0;
    int16_t  best  = 0;
    *which         = 0;
    for (int book = 0; book < 2; ++book, turbo_negate(v)) {
        for (int trial = 0; trial < TURBO_WIDE_TRIALS; ++trial) {
            uint16_t      metric[TURBO_STATES];
            uint32_t      came[QK_TURBO];
            int16_t       y[QK_TURBO];
            const int16_t peak = e->book[book].wide[trial];
            turbo_scale(v, peak, y);
            turbo_turn(&e->tables[book], y, metric, came);
            const uint32_t error = metric[turbo_best_state(metric)];
            if (best == 0 || turbo_less(error, peak, least, best)) {
                least  = error;
                best   = peak;
                *which = book;
            }
        }
    }
    if (*which == 1) {
        turbo_negate(v);
    }
    return best;
}

// Path and upper bits of the indices of a block, and its radius.
static uint16_t encode(const encoder * e, const float * x, uint64_t * path, uint8_t * high) {
    int16_t     v[QK_TURBO], y[QK_TURBO];
    uint16_t    radius = 0;
    const float peak   = turbo_prepare(&e->book[0], x, v);
    if (peak != 0.0f) {
        uint16_t metric[TURBO_STATES];
        uint32_t came[QK_TURBO];
        int      book = 0, start;
        int16_t  best = turbo_unusual(v) ? 0 : turbo_judge(&e->book[0], &e->tables[0], v);
        if (best == 0) {
            best = judge_again(e, v, &book);
        }
        turbo_scale(v, best, y);
        turbo_turn(&e->tables[book], y, metric, came);
        *path  = turbo_trace(came, turbo_best_state(metric), &start);
        radius = turbo_finish(&e->book[book], peak, v, y, *path, turbo_past_of(start), high);
        radius |= (uint16_t) (radius != 0 && book == 1) << 15;
    }
    if (radius == 0) {
        *path = 0;
        memset(high, 0, QK_TURBO);
    }
    return radius;
}

void ggml_turbo4_quantize_row(const float * x, void * y, int64_t k) {
    encoder e = { .book = { TURBO4_CODEBOOK, TURBO4_CODEBOOK2 } };
    fill(&e);
    for (block_turbo4 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        uint8_t        high[QK_TURBO];
        uint64_t       path;
        const uint16_t radius = encode(&e, x, &path, high);
        turbo_store_4(radius, path, high, b);
    }
}

void ggml_turbo3_quantize_row(const float * x, void * y, int64_t k) {
    encoder e = { .book = { TURBO3_CODEBOOK, TURBO3_CODEBOOK2 } };
    fill(&e);
    for (block_turbo3 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        uint8_t        high[QK_TURBO];
        uint64_t       path;
        const uint16_t radius = encode(&e, x, &path, high);
        turbo_store_3(radius, path, high, b);
    }
}

void ggml_turbo2_quantize_row(const float * x, void * y, int64_t k) {
    encoder e = { .book = { TURBO2_CODEBOOK, TURBO2_CODEBOOK2 } };
    fill(&e);
    for (block_turbo2 * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {
        uint8_t        high[QK_TURBO];
        uint64_t       path;
        const uint16_t radius = encode(&e, x, &path, high);
        turbo_store_2(radius, path, high, b);
    }
}

static int bit_of(const uint8_t * plane, int j) {
    return plane[j % 8] >> j / 8 & 1;
}

static int pair_of(const uint8_t * pairs, int j) {
    return pairs[j % 16] >> 2 * (j / 16) & 3;
}

// Bits 0 and 1 of the indices.
static void trellis_bits(uint16_t radius, const uint8_t * plane, uint8_t * index) {
    const uint64_t path = turbo_load_plane(plane), past = turbo_past(radius);
    const uint64_t bit0 = turbo_bit0(path, past), bit1 = turbo_bit1(path, past);
    for (int j = 0; j < QK_TURBO; ++j) {
        const int t = turbo_position(j);
        index[j]    = (uint8_t) ((bit1 >> t & 1) << 1 | (bit0 >> t & 1));
    }
}

void ggml_turbo4_indices(const block_turbo4 * x, uint8_t * index) {
    trellis_bits(x->d, x->path, index);
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] |= (uint8_t) (pair_of(x->qs, j) << 2 | bit_of(x->qh, j) << 4);
    }
}

void ggml_turbo3_indices(const block_turbo3 * x, uint8_t * index) {
    trellis_bits(x->d, x->path, index);
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] |= (uint8_t) (pair_of(x->qs, j) << 2);
    }
}

void ggml_turbo2_indices(const block_turbo2 * x, uint8_t * index) {
    trellis_bits(x->d, x->path, index);
    for (int j = 0; j < QK_TURBO; ++j) {
        index[j] |= (uint8_t) (bit_of(x->qs, j) << 2);
    }
}

void ggml_turbo4_levels_row(const void * x, int8_t * levels, float * scale, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo4 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo4_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo4_levels[turbo_book(b->d)][index[j]];
        }
        *scale++ = turbo_scale_of(b->d);
    }
}

void ggml_turbo3_levels_row(const void * x, int8_t * levels, float * scale, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo3 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo3_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo3_levels[turbo_book(b->d)][index[j]];
        }
        *scale++ = turbo_scale_of(b->d);
    }
}

void ggml_turbo2_levels_row(const void * x, int8_t * levels, float * scale, int64_t k) {
    uint8_t index[QK_TURBO];
    for (const block_turbo2 * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) {
        ggml_turbo2_indices(b, index);
        for (int j = 0; j < QK_TURBO; ++j) {
            levels[j] = ggml_turbo2_levels[turbo_book(b->d)][index[j]];
        }
        *scale++ = turbo_scale_of(b->d);
    }
}

void ggml_turbo4_dequantize_row(const void * x, float * y, int64_t k) {
    int8_t level[QK_TURBO];
    float  scale;
    for (const block_turbo4 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo4_levels_row(b, level, &scale, QK_TURBO);
        for (int j = 0; j < QK_TURBO; ++j) {
            y[j] = scale * (float) level[j];
        }
    }
}

void ggml_turbo3_dequantize_row(const void * x, float * y, int64_t k) {
    int8_t level[QK_TURBO];
    float  scale;
    for (const block_turbo3 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo3_levels_row(b, level, &scale, QK_TURBO);
        for (int j = 0; j < QK_TURBO; ++j) {
            y[j] = scale * (float) level[j];
        }
    }
}

void ggml_turbo2_dequantize_row(const void * x, float * y, int64_t k) {
    int8_t level[QK_TURBO];
    float  scale;
    for (const block_turbo2 * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {
        ggml_turbo2_levels_row(b, level, &scale, QK_TURBO);
        for (int j = 0; j < QK_TURBO; ++j) {
            y[j] = scale * (float) level[j];
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
