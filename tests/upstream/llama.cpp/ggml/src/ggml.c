#include "ggml.h"

#include "ggml-impl.h"
#include "ggml-quants.h"

static void fp16_to_fp32_row(const ggml_fp16_t * x, float * y, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        y[i] = GGML_FP16_TO_FP32(x[i]);
    }
}

static void fp32_to_fp16_row(const float * x, ggml_fp16_t * y, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        y[i] = GGML_FP32_TO_FP16(x[i]);
    }
}

static void fp32_row(const float * x, float * y, int64_t k) {
    memcpy(y, x, k * sizeof(float));
}

static const struct ggml_type_traits type_traits[GGML_TYPE_COUNT] = {
    [GGML_TYPE_I32] = {
        .type_name                = "i32",
        .blck_size                = 1,
        .type_size                = sizeof(int32_t),
        .is_quantized             = false,
    },
    [GGML_TYPE_F32] = {
        .type_name                = "f32",
        .blck_size                = 1,
        .type_size                = sizeof(float),
        .is_quantized             = false,
        .to_float                 = (ggml_to_float_t) fp32_row,
        .from_float_ref           = (ggml_from_float_t) fp32_row,
    },
    [GGML_TYPE_F16] = {
        .type_name                = "f16",
        .blck_size                = 1,
        .type_size                = sizeof(ggml_fp16_t),
        .is_quantized             = false,
        .to_float                 = (ggml_to_float_t) fp16_to_fp32_row,
        .from_float_ref           = (ggml_from_float_t) fp32_to_fp16_row,
    },
    [GGML_TYPE_Q4_0] = {
        .type_name                = "q4_0",
        .blck_size                = QK4_0,
        .type_size                = sizeof(block_q4_0),
        .is_quantized             = true,
        .to_float                 = (ggml_to_float_t) dequantize_row_q4_0,
        .from_float_ref           = (ggml_from_float_t) quantize_row_q4_0_ref,
    },
    [GGML_TYPE_Q8_0] = {
        .type_name                = "q8_0",
        .blck_size                = QK8_0,
        .type_size                = sizeof(block_q8_0),
        .is_quantized             = true,
        .to_float                 = (ggml_to_float_t) dequantize_row_q8_0,
        .from_float_ref           = (ggml_from_float_t) quantize_row_q8_0_ref,
    },
};

const struct ggml_type_traits * ggml_get_type_traits(enum ggml_type type) {
    GGML_ASSERT((int) type >= 0 && type < GGML_TYPE_COUNT);
    return &type_traits[type];
}

const char * ggml_type_name(enum ggml_type type) {
    return (int) type >= 0 && type < GGML_TYPE_COUNT && type_traits[type].type_name ? type_traits[type].type_name : "NONE";
}

int64_t ggml_blck_size(enum ggml_type type) {
    return ggml_get_type_traits(type)->blck_size;
}

size_t ggml_type_size(enum ggml_type type) {
    return ggml_get_type_traits(type)->type_size;
}

size_t ggml_row_size(enum ggml_type type, int64_t ne) {
    GGML_ASSERT(ggml_blck_size(type) > 0 && ne % ggml_blck_size(type) == 0);
    return ggml_type_size(type) * ne / ggml_blck_size(type);
}

bool ggml_is_quantized(enum ggml_type type) {
    return ggml_get_type_traits(type)->is_quantized;
}

struct ggml_tensor ggml_view_of(enum ggml_type type, int64_t ne0, int64_t ne1, void * data) {
    struct ggml_tensor t = { .type = type, .ne = { ne0, ne1, 1, 1 }, .data = data };
    t.nb[0] = ggml_type_size(type);
    t.nb[1] = ggml_row_size(type, ne0);
    t.nb[2] = t.nb[3] = t.nb[1] * ne1;
    return t;
}

size_t ggml_quantize_chunk(
        enum ggml_type type, const float * src, void * dst,
        int64_t start, int64_t nrows, int64_t n_per_row, const float * imatrix) {
    const int64_t n = nrows * n_per_row;

    GGML_ASSERT(start % type_traits[type].blck_size == 0);
    GGML_ASSERT(start % n_per_row == 0);

    const size_t start_row = start / n_per_row;
    const size_t row_size  = ggml_row_size(type, n_per_row);

    size_t result = 0;

    switch (type) {
        case GGML_TYPE_Q4_0:    result = quantize_q4_0   (src + start, (char *) dst + start_row * row_size, nrows, n_per_row, imatrix); break;
        case GGML_TYPE_Q8_0:    result = quantize_q8_0   (src + start, (char *) dst + start_row * row_size, nrows, n_per_row, imatrix); break;
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
            {
                type_traits[type].from_float_ref(src + start, (char *) dst + start_row * row_size, n);
                result = nrows * row_size;
            } break;
        default:
            GGML_ABORT("%s: %s cannot be quantized to", __func__, ggml_type_name(type));
    }

    GGML_ASSERT(result == nrows * row_size);

    return result;
}
