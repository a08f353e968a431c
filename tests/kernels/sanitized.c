// Drives every kernel over random bit patterns, as floats and as blocks, for a build with sanitizers. Buffers are exact
// heap allocations, so that a byte too far is seen.
#include "ggml-common.h"
#include "ggml-cpu-turbo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 88172645463325252u;

static uint32_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t) (state >> 16);
}

#define DRIVE(id)                                                                      \
    static void drive_##id(void) {                                                     \
        float *      x = malloc(64 * sizeof(float));                                   \
        void *       b = malloc(sizeof(block_##id));                                   \
        block_q8_0 * q = malloc(2 * sizeof(block_q8_0));                               \
        for (int n = 0; n < 20000; ++n) {                                             \
            const int narrow = n % 3;                                                  \
            for (int j = 0; j < 64; ++j) {                                             \
                const uint32_t bits = narrow ? (next() & 0x807fffff) | 0x3f000000 : next(); \
                memcpy(&x[j], &bits, sizeof(bits));                                    \
            }                                                                          \
            ggml_##id##_quantize_row(x, b, 64);                                        \
            ggml_##id##_dequantize_row(b, x, 64);                                      \
            for (int j = 0; j < 64; ++j) {                                             \
                if (!isfinite(x[j])) {                                                 \
                    abort();                                                           \
                }                                                                      \
            }                                                                          \
            for (size_t j = 0; j < sizeof(block_##id); ++j) {                          \
                ((uint8_t *) b)[j] = (uint8_t) next();                                 \
            }                                                                          \
            for (size_t j = 0; j < 2 * sizeof(block_q8_0); ++j) {                      \
                ((uint8_t *) q)[j] = (uint8_t) next();                                 \
            }                                                                          \
            ggml_##id##_dequantize_row(b, x, 64);                                      \
            ggml_vec_dot_##id##_q8_0(64, x, 0, b, 0, q, 0, 1);                         \
        }                                                                              \
        free(x);                                                                       \
        free(b);                                                                       \
        free(q);                                                                       \
    }
DRIVE(turbo4)
DRIVE(turbo3)
DRIVE(turbo2)

int main(void) {
    drive_turbo4();
    drive_turbo3();
    drive_turbo2();
    printf("60000 blocks\n");
    return 0;
}
