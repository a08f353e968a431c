#include "ggml-quants.h"

#include "ggml-impl.h"

// The value that is largest in magnitude becomes -8, the end of the range that +8 does not reach.
void quantize_row_q4_0_ref(const float * GGML_RESTRICT x, block_q4_0 * GGML_RESTRICT y, int64_t k) {
    GGML_ASSERT(k % QK4_0 == 0);
    for (int64_t i = 0; i < k / QK4_0; i++, x += QK4_0) {
        float largest = 0.0f;
        for (int j = 0; j < QK4_0; j++) {
            largest = fabsf(x[j]) > fabsf(largest) ? x[j] : largest;
        }
        const float scale = largest / -8.0f;
        y[i].d = GGML_FP32_TO_FP16(scale);
        memset(y[i].qs, 0, sizeof y[i].qs);
        for (int j = 0; j < QK4_0; j++) {
            const long level = scale != 0.0f ? lroundf(x[j] / scale) : 0;
            y[i].qs[j % 16] |= (uint8_t) ((8 + MIN(level, 7)) << 4 * (j / 16));
        }
    }
}

void dequantize_row_q4_0(const block_q4_0 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        const int j = (int) (i % QK4_0);
        y[i] = GGML_FP16_TO_FP32(x[i / QK4_0].d) * ((x[i / QK4_0].qs[j % 16] >> 4 * (j / 16) & 15) - 8);
    }
}

size_t quantize_q4_0(const float * GGML_RESTRICT src, void * GGML_RESTRICT dst, int64_t nrows, int64_t n_per_row, const float * imatrix) {
    GGML_UNUSED(imatrix);
    quantize_row_q4_0_ref(src, (block_q4_0 *) dst, nrows * n_per_row);
    return nrows * ggml_row_size(GGML_TYPE_Q4_0, n_per_row);
}

void quantize_row_q8_0_ref(const float * GGML_RESTRICT x, block_q8_0 * GGML_RESTRICT y, int64_t k) {
    GGML_ASSERT(k % QK8_0 == 0);
    for (int64_t i = 0; i < k / QK8_0; i++, x += QK8_0) {
        float largest = 0.0f;
        for (int j = 0; j < QK8_0; j++) {
            largest = MAX(largest, fabsf(x[j]));
        }
        const float scale = largest / 127.0f;
        y[i].d = GGML_FP32_TO_FP16(scale);
        for (int j = 0; j < QK8_0; j++) {
            y[i].qs[j] = scale > 0.0f ? (int8_t) lroundf(x[j] / scale) : 0;
        }
    }
}

void dequantize_row_q8_0(const block_q8_0 * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k) {
    for (int64_t i = 0; i < k; i++) {
        y[i] = GGML_FP16_TO_FP32(x[i / QK8_0].d) * x[i / QK8_0].qs[i % QK8_0];
    }
}

size_t quantize_q8_0(const float * GGML_RESTRICT src, void * GGML_RESTRICT dst, int64_t nrows, int64_t n_per_row, const float * imatrix) {
    GGML_UNUSED(imatrix);
    quantize_row_q8_0_ref(src, (block_q8_0 *) dst, nrows * n_per_row);
    return nrows * ggml_row_size(GGML_TYPE_Q8_0, n_per_row);
}

static bool finite_fp16(ggml_fp16_t h, size_t i) {
    if ((h & 0x7c00) == 0x7c00) {
        fprintf(stderr, "ggml_validate_row_data: block %zu is not finite\n", i);
        return false;
    }
    return true;
}

#define VALIDATE_ROW_DATA_D_F16_IMPL(type, data, nb) \
    for (size_t i = 0; i < (nb); ++i) { \
        if (!finite_fp16(((const type *) (data))[i].d, i)) { \
            return false; \
        } \
    }

bool ggml_validate_row_data(enum ggml_type type, const void * data, size_t nbytes) {
    if ((int) type < 0 || type >= GGML_TYPE_COUNT || ggml_type_size(type) == 0 || nbytes % ggml_type_size(type) != 0) {
        fprintf(stderr, "%s: %zu bytes are no row of type %d\n", __func__, nbytes, (int) type);
        return false;
    }

    const size_t nb = nbytes/ggml_type_size(type);

    switch (type) {
        case GGML_TYPE_F16:
            {
                for (size_t i = 0; i < nb; ++i) {
                    if (!finite_fp16(((const ggml_fp16_t *) data)[i], i)) {
                        return false;
                    }
                }
            } break;
        case GGML_TYPE_F32:
            {
                for (size_t i = 0; i < nb; ++i) {
                    if (!isfinite(((const float *) data)[i])) {
                        return false;
                    }
                }
            } break;
        case GGML_TYPE_Q4_0:
            {
                VALIDATE_ROW_DATA_D_F16_IMPL(block_q4_0, data, nb);
            } break;
        case GGML_TYPE_Q8_0:
            {
                VALIDATE_ROW_DATA_D_F16_IMPL(block_q8_0, data, nb);
            } break;
        case GGML_TYPE_I8:
        case GGML_TYPE_I32:
            // every value is good
            break;
        default:
            {
                fprintf(stderr, "%s: invalid type %d\n", __func__, (int) type);
                return false;
            }
    }

    return true;
}
