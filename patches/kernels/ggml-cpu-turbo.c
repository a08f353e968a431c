// Dot products of the TurboQuant cache types with q8_0, in plain C: levels and activations are both int8, so a block is
// an integer sum, scaled once for each of the two q8_0 blocks that it faces.

#include "ggml-cpu-turbo.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include <assert.h>

_Static_assert(QK_TURBO == 2 * QK8_0, "a turbo block faces two blocks of q8_0");

static float dot_block(const int8_t * levels, uint16_t half, const uint8_t * index, const block_q8_0 * y) {
    int32_t low = 0, high = 0;
    for (int j = 0; j < QK8_0; ++j) {
        low += levels[index[j]] * y[0].qs[j];
        high += levels[index[j + QK8_0]] * y[1].qs[j];
    }
    const float scaled = ggml_turbo_half_to_float(y[0].d) * (float) low + ggml_turbo_half_to_float(y[1].d) * (float) high;
    return ggml_turbo_half_to_float(half) * scaled;
}

void ggml_vec_dot_turbo4_q8_0(
    int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc) {
    assert(nrc == 1 && n % QK_TURBO == 0);
    (void) bs, (void) bx, (void) by, (void) nrc;
    const block_turbo4 * x = vx;
    const block_q8_0 *   y = vy;
    uint8_t              index[QK_TURBO];
    float                sum = 0.0f;
    for (int i = 0; i < n / QK_TURBO; ++i) {
        ggml_turbo4_indices(&x[i], index);
        sum += dot_block(ggml_turbo4_levels, x[i].d, index, &y[2 * i]);
    }
    *s = sum;
}

void ggml_vec_dot_turbo3_q8_0(
    int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc) {
    assert(nrc == 1 && n % QK_TURBO == 0);
    (void) bs, (void) bx, (void) by, (void) nrc;
    const block_turbo3 * x = vx;
    const block_q8_0 *   y = vy;
    uint8_t              index[QK_TURBO];
    float                sum = 0.0f;
    for (int i = 0; i < n / QK_TURBO; ++i) {
        ggml_turbo3_indices(&x[i], index);
        sum += dot_block(ggml_turbo3_levels, x[i].d, index, &y[2 * i]);
    }
    *s = sum;
}

void ggml_vec_dot_turbo2_q8_0(
    int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc) {
    assert(nrc == 1 && n % QK_TURBO == 0);
    (void) bs, (void) bx, (void) by, (void) nrc;
    const block_turbo2 * x = vx;
    const block_q8_0 *   y = vy;
    uint8_t              index[QK_TURBO];
    float                sum = 0.0f;
    for (int i = 0; i < n / QK_TURBO; ++i) {
        ggml_turbo2_indices(&x[i], index);
        sum += dot_block(ggml_turbo2_levels, x[i].d, index, &y[2 * i]);
    }
    *s = sum;
}

void ggml_cpu_turbo4_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    ggml_turbo4_levels_row(x, levels, radius, k);
}

void ggml_cpu_turbo4_dequantize_row(const void * x, float * y, int64_t k) {
    ggml_turbo4_dequantize_row(x, y, k);
}

void ggml_cpu_turbo3_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    ggml_turbo3_levels_row(x, levels, radius, k);
}

void ggml_cpu_turbo3_dequantize_row(const void * x, float * y, int64_t k) {
    ggml_turbo3_dequantize_row(x, y, k);
}

void ggml_cpu_turbo2_levels_row(const void * x, int8_t * levels, float * radius, int64_t k) {
    ggml_turbo2_levels_row(x, levels, radius, k);
}

void ggml_cpu_turbo2_dequantize_row(const void * x, float * y, int64_t k) {
    ggml_turbo2_dequantize_row(x, y, k);
}
