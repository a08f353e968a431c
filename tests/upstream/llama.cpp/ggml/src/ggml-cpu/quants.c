#include "quants.h"

#include "ggml-common.h"
#include "ggml-impl.h"

#define DOT(name) \
    void name(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc)

DOT(ggml_dot_f32) {
    const float *x = vx, *y = vy;
    float part[8] = { 0 }; // eight sums, which a compiler can keep in one register
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) {
            part[j] += x[i + j] * y[i + j];
        }
    }
    for (; i < n; i++) {
        part[0] += x[i] * y[i];
    }
    *s = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

DOT(ggml_dot_f16) {
    const uint16_t *x = vx, *y = vy;
    float sum = 0.0f;
    while (n-- > 0) {
        sum += half_to_float(*x++) * half_to_float(*y++);
    }
    *s = sum;
}

DOT(ggml_dot_q4_0) {
    GGML_ASSERT(n % QK4_0 == 0);
    const block_q8_0 * y = vy;
    float sum = 0.0f;
    for (const block_q4_0 * x = vx; n > 0; n -= QK4_0, x++, y++) {
        int whole = 0;
        for (int j = 0; j < 16; j++) {
            whole += ((x->qs[j] & 15) - 8) * y->qs[j] + ((x->qs[j] >> 4) - 8) * y->qs[j + 16];
        }
        sum += half_to_float(x->d) * half_to_float(y->d) * (float) whole;
    }
    *s = sum;
}

DOT(ggml_dot_q8_0) {
    GGML_ASSERT(n % QK8_0 == 0);
    const block_q8_0 * y = vy;
    float sum = 0.0f;
    for (const block_q8_0 * x = vx; n > 0; n -= QK8_0, x++, y++) {
        int whole = 0;
        for (int j = 0; j < QK8_0; j++) {
            whole += x->qs[j] * y->qs[j];
        }
        sum += half_to_float(x->d) * half_to_float(y->d) * (float) whole;
    }
    *s = sum;
}
