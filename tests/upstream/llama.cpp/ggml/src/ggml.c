#include "ggml.h"

#include "ggml-common.h"
#include "ggml-quants.h"

#define FLOATS(id, name, type) \
    [id] = { .type_name = #name, .blck_size = 1, .type_size = sizeof(type), CODEC(name) }
#define BLOCKS(id, name, values) \
    [id] = { .type_name = #name, .blck_size = values, .type_size = sizeof(block_##name), .is_quantized = true, CODEC(name) }
#define CODEC(name) .to_float = ggml_decode_##name, .from_float_ref = ggml_encode_##name

static const struct ggml_type_traits type_traits[GGML_TYPE_COUNT] = {
    [GGML_TYPE_I32] = { .type_name = "i32", .blck_size = 1, .type_size = sizeof(int32_t) },
    [GGML_TYPE_I64] = { .type_name = "i64", .blck_size = 1, .type_size = sizeof(int64_t) },
    [GGML_TYPE_BF16] = { .type_name = "bf16", .blck_size = 1, .type_size = sizeof(uint16_t) },
    FLOATS(GGML_TYPE_F32, f32, float),
    FLOATS(GGML_TYPE_F16, f16, uint16_t),
    BLOCKS(GGML_TYPE_Q4_0, q4_0, QK4_0),
    BLOCKS(GGML_TYPE_Q8_0, q8_0, QK8_0),
};

const struct ggml_type_traits * ggml_get_type_traits(enum ggml_type type) {
    GGML_ASSERT((unsigned) type < GGML_TYPE_COUNT);
    return type_traits + type;
}

const char * ggml_type_name(enum ggml_type type) {
    const char * name = ggml_get_type_traits(type)->type_name;
    return name ? name : "a type that there is not";
}

int64_t ggml_blck_size(enum ggml_type type) {
    return ggml_get_type_traits(type)->blck_size;
}

bool ggml_is_quantized(enum ggml_type type) {
    return ggml_get_type_traits(type)->is_quantized;
}

size_t ggml_type_size(enum ggml_type type) {
    return ggml_get_type_traits(type)->type_size;
}

size_t ggml_row_size(enum ggml_type type, int64_t width) {
    const struct ggml_type_traits * traits = ggml_get_type_traits(type);
    GGML_ASSERT(traits->type_size > 0 && width % traits->blck_size == 0);
    return (size_t) (width / traits->blck_size) * traits->type_size;
}

struct ggml_tensor ggml_rows(enum ggml_type type, int64_t width, int64_t rows, void * data) {
    const size_t size = ggml_row_size(type, width);
    return (struct ggml_tensor) {
        .type = type, .ne = { width, rows, 1, 1 }, .nb = { ggml_type_size(type), size, size * rows, size * rows }, .data = data,
    };
}

// The variables that the labels of other types need are start_row, row_size and result.
size_t ggml_quantize_chunk(enum ggml_type type, const float * src, void * dst, int64_t start, int64_t nrows,
                           int64_t n_per_row, const float * imatrix) {
    (void) imatrix; // which values matter most: no type of the miniature makes use of it
    const size_t row_size = ggml_row_size(type, n_per_row), start_row = (size_t) (start / n_per_row);
    size_t result = 0;
    switch (type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
            type_traits[type].from_float_ref(src + start, (char *) dst + row_size * start_row, nrows * n_per_row);
            result = row_size * (size_t) nrows;
            break;
        default:
            GGML_ABORT("floats cannot become %s", ggml_type_name(type));
    }
    GGML_ASSERT(start % n_per_row == 0 && result == row_size * (size_t) nrows);
    return result;
}
