// Drives every kernel over random rows, as floats and as blocks, and writes all results to stdout: the same bytes from
// every variant of the build. Exits with 1 where the CPU's functions differ from the portable ones. Buffers are exact
// heap allocations, so that under a sanitizer a byte too far is seen.
#include "ggml-common.h"
#include "ggml-cpu-turbo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 112, BLOCKS = 19, VALUES = 64 * BLOCKS };

static uint64_t state = 88172645463325252u;

static uint32_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t) (state >> 16);
}

static void randomize(void * bytes, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        ((uint8_t *) bytes)[i] = (uint8_t) next();
    }
}

// Sums of integers are nearly Gaussian and the same everywhere; every fourth row is any bit pattern at all, every fourth
// has magnitudes around one FP16 radius from the smallest to beyond the largest, and every eighth has nearly a single one.
static void draw(float * x, int round) {
    for (int j = 0; j < VALUES; ++j) {
        int32_t sum = 0;
        for (int i = 0; i < 8; ++i) {
            sum += (int32_t) (next() & 0xffff) - 0x8000;
        }
        x[j] = (float) sum / 65536.0f;
        if (round % 4 == 1) {
            const uint32_t bits = next();
            memcpy(&x[j], &bits, sizeof(bits));
        }
        if (round % 4 == 2) {
            x[j] = ldexpf(x[j], round / 4 * 2 % 56 - 30);
        }
        if (round % 8 == 3) {
            x[j] = (x[j] < 0.0f ? -1.0f : 1.0f) + x[j] / 16.0f;
        }
    }
}

static void emit(const void * bytes, size_t n) {
    if (fwrite(bytes, 1, n, stdout) != n) {
        exit(2);
    }
}

static void same(const char * what, int round, const void * a, const void * b, size_t n) {
    if (memcmp(a, b, n) != 0) {
        fprintf(stderr, "%s differ in round %d\n", what, round);
        exit(1);
    }
    emit(a, n);
}

#define DRIVE(ID, id, RAW)                                                     \
    static void drive_##id(void) {                                             \
        const size_t size     = BLOCKS * sizeof(block_##id);                   \
        float *      x        = malloc(VALUES * sizeof(float));                \
        float *      y        = malloc(VALUES * sizeof(float));                \
        int8_t *     levels   = malloc(VALUES);                                \
        int8_t *     expected = malloc(VALUES);                                \
        float *      radius   = malloc(BLOCKS * sizeof(float));                \
        float *      scale    = malloc(BLOCKS * sizeof(float));                \
        block_##id * b        = malloc(size);                                  \
        block_##id * c        = malloc(size);                                  \
        block_q8_0 * q        = malloc(2 * BLOCKS * sizeof(block_q8_0));       \
        for (int round = 0; round < ROUNDS; ++round) {                         \
            draw(x, round);                                                    \
            ggml_##id##_quantize_row(x, b, VALUES);                            \
            ggml_cpu_##id##_quantize_row(x, c, VALUES);                        \
            same(#id ": blocks", round, b, c, size);                           \
            if (round % 2) {                                                   \
                randomize(b, size);                                            \
                for (int i = 0; i < BLOCKS; ++i) {                             \
                    b[i].d &= 0xbfff; /* finite */                             \
                }                                                              \
            }                                                                  \
            ggml_##id##_dequantize_row(b, x, VALUES);                          \
            ggml_cpu_##id##_dequantize_row(b, y, VALUES);                      \
            same(#id ": values", round, x, y, VALUES * sizeof(float));         \
            for (int j = 0; j < VALUES; ++j) {                                 \
                if (!isfinite(x[j])) {                                         \
                    fprintf(stderr, #id ": not finite\n");                     \
                    exit(1);                                                   \
                }                                                              \
            }                                                                  \
            ggml_##id##_levels_row(b, expected, scale, VALUES);                \
            ggml_cpu_##id##_levels_row(b, levels, radius, VALUES);             \
            same(#id ": levels", round, expected, levels, VALUES);             \
            same(#id ": radii", round, scale, radius, BLOCKS * sizeof(float)); \
            randomize(q, 2 * BLOCKS * sizeof(block_q8_0));                     \
            for (int i = 0; i < 2 * BLOCKS; ++i) {                             \
                q[i].d &= 0xbfff;                                              \
            }                                                                  \
            for (int n = 1; n <= BLOCKS; ++n) {                                \
                float dot;                                                     \
                ggml_vec_dot_##id##_q8_0(64 * n, &dot, 0, b, 0, q, 0, 1);      \
                emit(&dot, sizeof(dot));                                       \
            }                                                                  \
        }                                                                      \
        free(x);                                                               \
        free(y);                                                               \
        free(levels);                                                          \
        free(expected);                                                        \
        free(radius);                                                          \
        free(scale);                                                           \
        free(b);                                                               \
        free(c);                                                               \
        free(q);                                                               \
    }
TURBO_TYPES(DRIVE)

int main(void) {
#define CALL(ID, id, RAW) drive_##id();
    TURBO_TYPES(CALL)
    return 0;
}
