#include "ggml-quants.h"

#include "ggml-common.h"
#include "ggml-impl.h"

void ggml_decode_f32(const void * from, float * to, int64_t n) {
    memcpy(to, from, sizeof(float) * (size_t) n);
}

void ggml_encode_f32(const float * from, void * to, int64_t n) {
    memcpy(to, from, sizeof(float) * (size_t) n);
}

void ggml_decode_f16(const void * from, float * to, int64_t n) {
    for (const uint16_t * half = from; n > 0; n--) {
        *to++ = half_to_float(*half++);
    }
}

void ggml_encode_f16(const float * from, void * to, int64_t n) {
    for (uint16_t * half = to; n > 0; n--) {
        *half++ = float_to_half(*from++);
    }
}

// The one of n values that is largest in magnitude.
static float extreme(const float * values, int n) {
    float found = 0.0f;
    for (int j = 0; j < n; j++) {
        found = fabsf(values[j]) > fabsf(found) ? values[j] : found;
    }
    return found;
}

// The integer nearest to value / scale, at most `most`; 0 where everything is.
static int level(float value, float scale, int most) {
    const int nearest = scale != 0.0f ? (int) lroundf(value / scale) : 0;
    return nearest < most ? nearest : most;
}

void ggml_decode_q4_0(const void * from, float * to, int64_t n) {
    for (const block_q4_0 * block = from; n > 0; n -= QK4_0, block++) {
        const float scale = half_to_float(block->d);
        for (int j = 0; j < QK4_0; j++) {
            *to++ = scale * (float) ((block->qs[j % 16] >> 4 * (j / 16) & 15) - 8);
        }
    }
}

// The extreme becomes -8, the end of the range that +8 does not reach.
void ggml_encode_q4_0(const float * from, void * to, int64_t n) {
    GGML_ASSERT(n % QK4_0 == 0);
    for (block_q4_0 * block = to; n > 0; n -= QK4_0, from += QK4_0, block++) {
        const float scale = extreme(from, QK4_0) / -8.0f;
        *block = (block_q4_0) { .d = float_to_half(scale) };
        for (int j = 0; j < QK4_0; j++) {
            block->qs[j % 16] |= (uint8_t) (8 + level(from[j], scale, 7)) << 4 * (j / 16);
        }
    }
}

void ggml_decode_q8_0(const void * from, float * to, int64_t n) {
    for (const block_q8_0 * block = from; n > 0; n -= QK8_0, block++) {
        const float scale = half_to_float(block->d);
        for (int j = 0; j < QK8_0; j++) {
            *to++ = scale * (float) block->qs[j];
        }
    }
}

void ggml_encode_q8_0(const float * from, void * to, int64_t n) {
    GGML_ASSERT(n % QK8_0 == 0);
    for (block_q8_0 * block = to; n > 0; n -= QK8_0, from += QK8_0, block++) {
        const float scale = fabsf(extreme(from, QK8_0)) / 127.0f;
        block->d = float_to_half(scale);
        for (int j = 0; j < QK8_0; j++) {
            block->qs[j] = (int8_t) level(from[j], scale, 127);
        }
    }
}

static bool floats_are_finite(const float * values, size_t n) {
    size_t good = 0;
    while (good < n && isfinite(values[good])) {
        good++;
    }
    return good == n;
}

// The numbers in half precision at the start of every `size` bytes.
static bool halves_are_finite(const char * block, size_t size, size_t nbytes) {
    for (const char * end = block + nbytes; block < end; block += size) {
        uint16_t half;
        memcpy(&half, block, sizeof half);
        if ((~half & 0x7c00) == 0) {
            return false;
        }
    }
    return true;
}

bool ggml_validate_row_data(enum ggml_type type, const void * data, size_t nbytes) {
    const size_t size = (unsigned) type < GGML_TYPE_COUNT ? ggml_type_size(type) : 0;
    if (size == 0 || nbytes % size != 0) {
        return false;
    }
    switch (type) {
        case GGML_TYPE_F32:
            return floats_are_finite(data, nbytes / size);
        case GGML_TYPE_F16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            return halves_are_finite(data, size, nbytes);
        case GGML_TYPE_I8:
        case GGML_TYPE_I32:
            return true;
        default:
            return false;
    }
}
