// The portable functions of the TurboQuant cache types; see ggml-turbo.h for the formats.

#include "ggml-turbo-encode.h"

#define LEVELS(ID, id, RAW) const int8_t ggml_##id##_levels[2][4 << (RAW)] = { ID##_LEVELS, ID##_LEVELS2 };
TURBO_TYPES(LEVELS)

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

#define FUNCTIONS(ID, id, RAW)                                                                  \
    void ggml_##id##_quantize_row(const float * x, void * y, int64_t k) {                       \
        encoder e = { .book = TURBO_CODEBOOKS(ID, RAW) };                                       \
        fill(&e);                                                                               \
        for (block_##id * b = y; k >= QK_TURBO; k -= QK_TURBO, x += QK_TURBO, ++b) {            \
            uint8_t        high[QK_TURBO];                                                      \
            uint64_t       path;                                                                \
            const uint16_t radius = encode(&e, x, &path, high);                                 \
            turbo_store(radius, path, high, RAW, (uint8_t *) b);                                \
        }                                                                                       \
    }                                                                                           \
    void ggml_##id##_indices(const block_##id * x, uint8_t * index) {                           \
        const uint64_t path = turbo_load_plane(x->path), past = turbo_past(x->d);               \
        const uint64_t bit0 = turbo_bit0(path, past), bit1 = turbo_bit1(path, past);            \
        for (int j = 0; j < QK_TURBO; ++j) {                                                    \
            index[j] = turbo_index(bit0, bit1, x->raw, RAW, j);                                 \
        }                                                                                       \
    }                                                                                           \
    void ggml_##id##_levels_row(const void * x, int8_t * levels, float * scale, int64_t k) {    \
        uint8_t index[QK_TURBO];                                                                \
        for (const block_##id * b = x; k >= QK_TURBO; k -= QK_TURBO, levels += QK_TURBO, ++b) { \
            ggml_##id##_indices(b, index);                                                      \
            for (int j = 0; j < QK_TURBO; ++j) {                                                \
                levels[j] = ggml_##id##_levels[turbo_book(b->d)][index[j]];                     \
            }                                                                                   \
            *scale++ = turbo_scale_of(b->d);                                                    \
        }                                                                                       \
    }                                                                                           \
    void ggml_##id##_dequantize_row(const void * x, float * y, int64_t k) {                     \
        int8_t level[QK_TURBO];                                                                 \
        float  scale;                                                                           \
        for (const block_##id * b = x; k >= QK_TURBO; k -= QK_TURBO, y += QK_TURBO, ++b) {      \
            ggml_##id##_levels_row(b, level, &scale, QK_TURBO);                                 \
            for (int j = 0; j < QK_TURBO; ++j) {                                                \
                y[j] = scale * (float) level[j];                                                \
            }                                                                                   \
        }                                                                                       \
    }
TURBO_TYPES(FUNCTIONS)

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
#    define QUANTIZE(ID, id, RAW) case GGML_TYPE_##ID: ggml_##id##_quantize_row(src, dst, k); break;
        TURBO_TYPES(QUANTIZE)
        default: GGML_ABORT("%s is not a turbo type", ggml_type_name(type));
    }
    return (size_t) nrows * ggml_row_size(type, n_per_row);
}

#endif
