// What a user of the library may count on: zeros stay zeros, Gaussian vectors keep their direction, blocks have their
// stated size, and no input decodes to a value that is not finite. Exits with 1 and a line for each that does not hold.
#include "ggml-cpu-turbo.h"
#include "ggml-turbo.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { BLOCKS = 256, VALUES = QK_TURBO * BLOCKS };

typedef void (*quantizer)(const float * x, void * y, int64_t k);
typedef void (*dequantizer)(const void * x, float * y, int64_t k);

typedef struct {
    const char * name;
    quantizer    quantize, cpu_quantize;
    dequantizer  dequantize, cpu_dequantize;
    size_t       block_bytes;
    double       least_cosine;  // of Gaussian vectors; the types' signal to noise is 29.6, 23.6, 17.5 and 11.4 dB
} type;

#define TYPE(ID, id, RAW)                                                                        \
    {                                                                                            \
        #id, ggml_##id##_quantize_row, ggml_cpu_##id##_quantize_row, ggml_##id##_dequantize_row, \
            ggml_cpu_##id##_dequantize_row, sizeof(block_##id),                                  \
            (RAW) == 1 ? 0.95 : (RAW) == 2 ? 0.98 : (RAW) == 3 ? 0.99 : 0.997                    \
    },
static const type TYPES[] = { TURBO_TYPES(TYPE) };

static float   x[VALUES], y[VALUES], z[VALUES];
static uint8_t blocks[VALUES], again[VALUES];
static int     failed;

static void require(int holds, const type * t, const char * what, double figure) {
    if (!holds) {
        fprintf(stderr, "%s: %s: %g\n", t->name, what, figure);
        failed = 1;
    }
}

static double uniform(void) {  // above 0, at most 1
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return ((double) (state >> 11) + 1.0) / 9007199254740992.0;
}

static double gaussian(void) {
    return sqrt(-2.0 * log(uniform())) * cos(6.283185307179586 * uniform());
}

// x to y by the reference, which the functions for this CPU must match to the bit.
static void round_trip(const type * t) {
    memset(blocks, 0xa5, sizeof(blocks));
    memset(again, 0xa5, sizeof(again));
    t->quantize(x, blocks, VALUES);
    t->cpu_quantize(x, again, VALUES);
    require(memcmp(blocks, again, sizeof(blocks)) == 0, t, "blocks differ from the reference", 0);
    const size_t used = BLOCKS * t->block_bytes;
    require(blocks[used] == 0xa5 && again[used] == 0xa5, t, "writes past its blocks", (double) used);
    t->dequantize(blocks, y, VALUES);
    t->cpu_dequantize(blocks, z, VALUES);
    require(memcmp(y, z, sizeof(y)) == 0, t, "values differ from the reference", 0);
}

static void test(const type * t) {
    memset(x, 0, sizeof(x));
    round_trip(t);
    for (int i = 0; i < VALUES; ++i) {
        require(fabsf(y[i]) <= 1e-6f, t, "a zero vector gives", y[i]);
    }

    for (int i = 0; i < VALUES; ++i) {
        x[i] = (float) gaussian();
    }
    round_trip(t);
    double xy = 0, xx = 0, yy = 0;
    for (int i = 0; i < VALUES; ++i) {
        xy += (double) x[i] * y[i];
        xx += (double) x[i] * x[i];
        yy += (double) y[i] * y[i];
    }
    const double cosine = xy / sqrt(xx * yy);
    require(cosine >= t->least_cosine, t, "cosine of Gaussian vectors", cosine);
    printf("%s: %.3f bits per value, cosine %.5f\n", t->name, 8.0 * (double) t->block_bytes / QK_TURBO, cosine);

    const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, -1e-45f, 0.0f, 1.0f };
    for (int i = 0; i < VALUES; ++i) {
        x[i] = odd[i % 7 * (i / QK_TURBO % 7 + 1) % 7];
    }
    round_trip(t);
    for (int i = 0; i < VALUES; ++i) {
        require(isfinite(y[i]), t, "not finite", y[i]);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof(TYPES) / sizeof(TYPES[0]); ++i) {
        test(&TYPES[i]);
    }
    return failed;
}
