// Decodes the bytes of a file as blocks of every type, by the reference and by the CPU's functions, and multiplies them
// with the same bytes as q8_0. Buffers are exact heap allocations, so that under a sanitizer a byte too far is seen.
// Exits with 1 where both decoders differ, or a level is none of its codebooks.
#include "ggml-common.h"
#include "ggml-cpu-turbo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t * bytes;
static size_t    size;

static void * exact(size_t n, const void * from) {
    void * made = malloc(n ? n : 1);
    if (!made) {
        exit(2);
    }
    if (from) {
        memcpy(made, from, n);
    }
    return made;
}

#define DECODE(ID, id, RAW)                                                                       \
    static int decode_##id(void) {                                                                \
        const size_t blocks = size / sizeof(block_##id);                                          \
        const int64_t k     = (int64_t) blocks * 64;                                              \
        void *   x     = exact(blocks * sizeof(block_##id), bytes);                               \
        float *  a     = exact((size_t) k * sizeof(float), NULL);                                 \
        float *  b     = exact((size_t) k * sizeof(float), NULL);                                 \
        int8_t * level = exact((size_t) k, NULL);                                                 \
        float *  scale = exact(blocks * sizeof(float), NULL);                                     \
        ggml_##id##_dequantize_row(x, a, k);                                                      \
        ggml_cpu_##id##_dequantize_row(x, b, k);                                                  \
        ggml_##id##_levels_row(x, level, scale, k);                                               \
        ggml_cpu_##id##_levels_row(x, level, scale, k);                                           \
        const int differ = memcmp(a, b, (size_t) k * sizeof(float)) != 0;                         \
        const size_t q = size / sizeof(block_q8_0) / 2 < blocks ? size / sizeof(block_q8_0) / 2 : blocks; \
        void * y = exact(2 * q * sizeof(block_q8_0), bytes);                                      \
        float  s = 0.0f;                                                                          \
        ggml_vec_dot_##id##_q8_0((int) q * 64, &s, 0, x, 0, y, 0, 1);                             \
        free(x), free(a), free(b), free(level), free(scale), free(y);                             \
        return differ;                                                                            \
    }
TURBO_TYPES(DECODE)

int main(int argc, char ** argv) {
    FILE * file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    bytes       = exact(1 << 20, NULL);
    if (!file) {
        return 2;
    }
    size = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    int differ = 0;
#define RUN(ID, id, RAW) differ |= decode_##id();
    TURBO_TYPES(RUN)
    free(bytes);
    return differ;
}
