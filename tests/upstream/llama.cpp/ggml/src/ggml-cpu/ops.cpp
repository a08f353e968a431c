#include "ops.h"

#include "ggml-cpu-impl.h"

// Tensors here are at most 2D, rows packed along dimension 0. Row r of a tensor is what thread r % nth works on.

template <typename T> static T * row(const ggml_tensor * t, int64_t i) {
    return (T *) ((char *) t->data + i * t->nb[1]);
}

// The bytes that acc and set work on: src1's shape inside dst, from offset op_params[0] on.
template <typename T, typename F> static void each_in_view(const ggml_compute_params * params, ggml_tensor * dst, F f) {
    const ggml_tensor * src1 = dst->src[1];
    for (int64_t i = params->ith; i < src1->ne[1]; i += params->nth) {
        T * to = (T *) ((char *) dst->data + dst->op_params[0] + i * dst->nb[1]);
        for (int64_t j = 0; j < src1->ne[0]; j++) {
            f(to[j], row<const T>(src1, i)[j]);
        }
    }
}

// dst = src0 + f(row, column), by way of floats
template <typename F> static void add_rows(const ggml_compute_params * params, ggml_tensor * dst, F f) {
    const ggml_tensor * src0 = dst->src[0];
    const ggml_to_float_t to_float = ggml_get_type_traits(src0->type)->to_float;
    const ggml_from_float_t from_float = ggml_get_type_traits_cpu(dst->type)->from_float;
    float * wdata = (float *) params->wdata;
    GGML_ASSERT(params->wsize >= src0->ne[0] * sizeof(float));

    for (int64_t i = params->ith; i < src0->ne[1]; i += params->nth) {
        to_float(row<void>(src0, i), wdata, src0->ne[0]);
        for (int64_t j = 0; j < src0->ne[0]; j++) {
            wdata[j] += f(i, j);
        }
        from_float(wdata, row<void>(dst, i), src0->ne[0]);
    }
}

// ggml_compute_forward_add

static void ggml_compute_forward_add_q_f32(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * src1 = dst->src[1];
    GGML_ASSERT(src1->type == GGML_TYPE_F32);
    add_rows(params, dst, [&](int64_t i, int64_t j) { return row<float>(src1, i)[j]; });
}

void ggml_compute_forward_add(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            {
                ggml_compute_forward_add_q_f32(params, dst);
            } break;
        default:
            {
                GGML_ABORT("fatal error");
            }
    }
}

// ggml_compute_forward_add1

static void ggml_compute_forward_add1_q_f32(const ggml_compute_params * params, ggml_tensor * dst) {
    const float value = *(const float *) dst->src[1]->data;
    add_rows(params, dst, [&](int64_t, int64_t) { return value; });
}

void ggml_compute_forward_add1(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            {
                ggml_compute_forward_add1_q_f32(params, dst);
            } break;
        default:
            {
                GGML_ABORT("fatal error");
            }
    }
}

// ggml_compute_forward_acc

void ggml_compute_forward_acc(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_F32:
            {
                each_in_view<float>(params, dst, [](float & to, float from) { to += from; });
            } break;
        case GGML_TYPE_F16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
        default:
            {
                GGML_ABORT("fatal error");
            }
    }
}

// ggml_compute_forward_out_prod: dst[i, j] = sum over k of src0[i, k] * src1[j, k]

static void ggml_compute_forward_out_prod_q_f32(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * src0 = dst->src[0];
    const ggml_tensor * src1 = dst->src[1];
    const ggml_to_float_t to_float = ggml_get_type_traits(src0->type)->to_float;
    float * wdata = (float *) params->wdata;
    GGML_ASSERT(params->wsize >= src0->ne[0] * sizeof(float));

    for (int64_t j = params->ith; j < dst->ne[1]; j += params->nth) {
        float * out = row<float>(dst, j);
        memset(out, 0, dst->ne[0] * sizeof(float));
        for (int64_t k = 0; k < src0->ne[1]; k++) {
            const float weight = row<float>(src1, k)[j];
            to_float(row<void>(src0, k), wdata, src0->ne[0]);
            for (int64_t i = 0; i < dst->ne[0]; i++) {
                out[i] += weight * wdata[i];
            }
        }
    }
}

void ggml_compute_forward_out_prod(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
            {
                ggml_compute_forward_out_prod_q_f32(params, dst);
            } break;
        default:
            {
                GGML_ABORT("fatal error");
            }
    }
}

// ggml_compute_forward_set

void ggml_compute_forward_set(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_I32:
            {
                each_in_view<int32_t>(params, dst, [](int32_t & to, int32_t from) { to = from; });
            } break;
        case GGML_TYPE_F16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
        default:
            {
                GGML_ABORT("fatal error");
            }
    }
}

// ggml_compute_forward_get_rows

static void ggml_compute_forward_get_rows_q(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * src0 = dst->src[0];
    const ggml_tensor * src1 = dst->src[1];
    for (int64_t i = params->ith; i < src1->ne[0]; i += params->nth) {
        const int32_t from = ((const int32_t *) src1->data)[i];
        GGML_ASSERT(from >= 0 && from < src0->ne[1]);
        ggml_get_type_traits(src0->type)->to_float(row<void>(src0, from), row<float>(dst, i), src0->ne[0]);
    }
}

void ggml_compute_forward_get_rows(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
            {
                ggml_compute_forward_get_rows_q(params, dst);
            } break;
        default:
            {
                GGML_ABORT("fatal error");
            }
    }
}

// ggml_compute_forward_clamp

void ggml_compute_forward_clamp(
        const ggml_compute_params * params,
        ggml_tensor * dst) {

    const ggml_tensor * src0 = dst->src[0];

    switch (src0->type) {
        case GGML_TYPE_F32:
            {
                float limits[2];
                memcpy(limits, dst->op_params, sizeof limits);
                for (int64_t i = params->ith; i < src0->ne[1]; i += params->nth) {
                    for (int64_t j = 0; j < src0->ne[0]; j++) {
                        row<float>(dst, i)[j] = MAX(limits[0], MIN(limits[1], row<float>(src0, i)[j]));
                    }
                }
            } break;
        case GGML_TYPE_F16:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_Q2_K:
        case GGML_TYPE_I8:
        case GGML_TYPE_I32:
        case GGML_TYPE_COUNT:
            {
                GGML_ABORT("fatal error");
            }
    }
}
