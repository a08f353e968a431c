// What happens when the lanes of a SIMD-group meet: reductions, shuffles, matrices.
#pragma once
#include <math.h>

#include "memory.h"

// Element of a SIMD-group matrix that lane `l` holds first; the second is its right neighbour. Found by trial on Apple
// GPUs and relied upon by published kernels; Apple does not document it.
inline int matrix_row(int l) { return (l / 4 & 4) + l / 2 % 4; }
inline int matrix_column(int l) { return (l / 4 & 2) * 2 + l % 2 * 2; }

template <typename T, typename W> static void combine(int op, T *into, T with) {
    W a = (W)*into, b = (W)with;
    switch (op) {
    case MSL_SUM: a = (W)(a + b); break;
    case MSL_PRODUCT: a = (W)(a * b); break;
    case MSL_MIN: a = b < a || a != a ? b : a; break;
    case MSL_MAX: a = a < b || a != a ? b : a; break;
    case MSL_AND: a = (W)((long)a & (long)b); break;
    case MSL_OR: a = (W)((long)a | (long)b); break;
    case MSL_XOR: a = (W)((long)a ^ (long)b); break;
    }
    *into = (T)a;
}

template <typename T, typename W> static void fold(Lane **who, int n, int component) {
    T values[WIDTH];
    for (int i = 0; i < n; i++) values[i] = ((T *)who[i]->own)[component];
    int kind = who[0]->kind, op = who[0]->op;
    if (kind == MSL_REDUCE) {
        // pairwise, as a tree of shuffles would; each step is rounded to the type
        for (int step = 1; step < n; step *= 2)
            for (int i = 0; i + step < n; i += 2 * step) combine<T, W>(op, &values[i], values[i + step]);
        for (int i = 0; i < n; i++) ((T *)who[i]->own)[component] = values[0];
        return;
    }
    T running = op == MSL_PRODUCT ? (T)1 : (T)0;
    for (int i = 0; i < n; i++) {
        T before = running;
        combine<T, W>(op, &running, values[i]);
        ((T *)who[i]->own)[component] = kind == MSL_PREFIX_INCLUSIVE ? running : before;
    }
}

static int bytes_of(int code) {
    static const int sizes[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 2};
    return sizes[code];
}

static void fold_any(Lane **who, int n) {
    for (int k = 0; k < who[0]->count; k++) switch (who[0]->code) {
        case 0: case 2: fold<uint8_t, unsigned>(who, n, k); break;
        case 1: fold<int8_t, int>(who, n, k); break;
        case 3: fold<int16_t, int>(who, n, k); break;
        case 4: fold<uint16_t, unsigned>(who, n, k); break;
        case 5: fold<int32_t, int>(who, n, k); break;
        case 6: fold<uint32_t, unsigned>(who, n, k); break;
        case 7: fold<int64_t, long>(who, n, k); break;
        case 8: fold<uint64_t, unsigned long>(who, n, k); break;
        case 9: fold<_Float16, float>(who, n, k); break;
        case 10: fold<float, float>(who, n, k); break;
        case 11: fold<__bf16, float>(who, n, k); break;
        }
}

// Lane by lane from another lane's value. What an absent lane would give is undefined in MSL: the lane keeps its own.
static void shuffle(Lane **who, int n) {
    char values[WIDTH][64];
    bool here[WIDTH] = {};
    int size = who[0]->count == 3 ? 4 * bytes_of(who[0]->code) : who[0]->count * bytes_of(who[0]->code);
    for (int i = 0; i < n; i++) {
        int l = who[i]->index % WIDTH;
        here[l] = true;
        memcpy(values[l], who[i]->own, (size_t)size);
    }
    for (int i = 0; i < n; i++) {
        int l = who[i]->index % WIDTH, by = who[i]->argument, from = l;
        switch (who[i]->kind) {
        case MSL_SHUFFLE: from = by; break;
        case MSL_SHUFFLE_XOR: from = l ^ by; break;
        case MSL_SHUFFLE_DOWN: from = l + by; break;
        case MSL_SHUFFLE_UP: from = l - by; break;
        case MSL_ROTATE_DOWN: from = (l + by) % WIDTH; break;
        case MSL_ROTATE_UP: from = (l - by % WIDTH + WIDTH) % WIDTH; break;
        case MSL_BROADCAST_FIRST: from = who[0]->index % WIDTH; break;
        }
        if (from >= 0 && from < WIDTH && here[from]) memcpy(who[i]->own, values[from], (size_t)size);
    }
}

static void ballot(Lane **who, int n) {
    uint32_t present = 0, yes = 0;
    for (int i = 0; i < n; i++) {
        present |= 1u << who[i]->index % WIDTH;
        if (*(uint32_t *)who[i]->own) yes |= 1u << who[i]->index % WIDTH;
    }
    for (int i = 0; i < n; i++) {
        ((uint32_t *)who[i]->own)[0] = present;
        ((uint32_t *)who[i]->own)[1] = yes;
    }
}

static float element(const void *pair, int code, int k) {
    switch (code) {
    case 9: return (float)((const _Float16 *)pair)[k];
    case 11: return (float)((const __bf16 *)pair)[k];
    default: return ((const float *)pair)[k];
    }
}

// d = a b + c: products and sums in float in the order of k, rounded once at the end.
static void multiply(Lane **who, int n) {
    float a[8][8] = {}, b[8][8] = {}, d[8][8] = {};
    int codes = who[0]->code, ca = codes >> 8 & 255, cb = codes >> 16 & 255, cc = codes >> 24 & 255, cd = codes & 255;
    for (int i = 0; i < n; i++) {
        int l = who[i]->index % WIDTH, r = matrix_row(l), c = matrix_column(l);
        for (int k = 0; k < 2; k++) {
            a[r][c + k] = element(who[i]->a, ca, k);
            b[r][c + k] = element(who[i]->b, cb, k);
            d[r][c + k] = who[i]->c ? element(who[i]->c, cc, k) : 0.0f;
        }
    }
    for (int r = 0; r < 8; r++)
        for (int k = 0; k < 8; k++)
            for (int c = 0; c < 8; c++) d[r][c] += a[r][k] * b[k][c];
    for (int i = 0; i < n; i++) {
        int l = who[i]->index % WIDTH, r = matrix_row(l), c = matrix_column(l);
        for (int k = 0; k < 2; k++) switch (cd) {
            case 9: ((_Float16 *)who[i]->own)[k] = (_Float16)d[r][c + k]; break;
            case 11: ((__bf16 *)who[i]->own)[k] = (__bf16)d[r][c + k]; break;
            default: ((float *)who[i]->own)[k] = d[r][c + k];
            }
    }
}

static void move(Lane **who, int n) {
    for (int i = 0; i < n; i++) {
        lane = who[i];
        int l = lane->index % WIDTH, r = matrix_row(l), c = matrix_column(l), size = lane->code;
        for (int k = 0; k < 2; k++) {
            char *own = (char *)lane->own + k * size;
            if (!lane->memory) { // the diagonal of a new matrix stays, the rest becomes zero
                if (r != c + k) memset(own, 0, (size_t)size);
                continue;
            }
            long row = lane->argument ? c + k : r, column = lane->argument ? r : c + k;
            char *at = (char *)lane->memory + (row * lane->stride + column) * size;
            access((uintptr_t)at, size, lane->kind == MSL_STORE, lane->site);
            if (lane->kind == MSL_STORE) memcpy(at, own, (size_t)size);
            else memcpy(own, at, (size_t)size);
        }
    }
}

static void meet(Lane **who, int n) {
    outcome->met[who[0]->kind]++;
    met[who[0]->index / WIDTH]++;
    switch (who[0]->kind) {
    case MSL_REDUCE: case MSL_PREFIX_INCLUSIVE: case MSL_PREFIX_EXCLUSIVE: fold_any(who, n); break;
    case MSL_BALLOT: ballot(who, n); break;
    case MSL_MULTIPLY: multiply(who, n); break;
    case MSL_LOAD: case MSL_STORE: move(who, n); break;
    case MSL_SIMDGROUP_BARRIER:
        if (who[0]->argument & 2) simd_epoch[who[0]->index / WIDTH]++;
        break;
    default: shuffle(who, n);
    }
}
