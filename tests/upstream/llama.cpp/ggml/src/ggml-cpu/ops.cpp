#include "ops.h"

#include <algorithm>

template <typename T> static T * row(const ggml_tensor * tensor, int64_t number) {
    return reinterpret_cast<T *>(static_cast<char *>(tensor->data) + number * tensor->stride);
}

// The rows of a tensor that this thread has to see to.
template <typename F> static void share(const ggml_compute_params * params, const ggml_tensor * tensor, F see_to) {
    for (int64_t number = params->ith; number < tensor->rows; number += params->nth) {
        see_to(number);
    }
}

// A row as floats, in the thread's own memory.
static float * decoded(const ggml_compute_params * params, const ggml_tensor * tensor, int64_t number) {
    GGML_ASSERT(params->row_width >= tensor->width);
    ggml_get_type_traits(tensor->type)->to_float(row<void>(tensor, number), params->row, tensor->width);
    return params->row;
}

// dst = src0 + addend(row, column)
template <typename F> static void add(const ggml_compute_params * params, ggml_tensor * dst, F addend) {
    share(params, dst, [&](int64_t number) {
        float * sum = decoded(params, dst->src[0], number);
        for (int64_t column = 0; column < dst->width; column++) {
            sum[column] += addend(number, column);
        }
        ggml_get_type_traits_cpu(dst->type)->from_float(sum, row<void>(dst, number), dst->width);
    });
}

[[noreturn]] static void refuse(const char * operation, const ggml_tensor * operand) {
    GGML_ABORT("%s: not with %s", operation, ggml_type_name(operand->type));
}

void ggml_compute_forward_add(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * other = dst->src[1];
    switch (dst->src[0]->type) {
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            GGML_ASSERT(other->type == GGML_TYPE_F32);
            return add(params, dst, [=](int64_t number, int64_t column) { return row<float>(other, number)[column]; });
        default:
            refuse("add", dst->src[0]);
    }
}

void ggml_compute_forward_add1(const ggml_compute_params * params, ggml_tensor * dst) {
    const float value = *row<float>(dst->src[1], 0);
    switch (dst->src[0]->type) {
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            return add(params, dst, [=](int64_t, int64_t) { return value; });
        default:
            refuse("add1", dst->src[0]);
    }
}

void ggml_compute_forward_clamp(const ggml_compute_params * params, ggml_tensor * dst) {
    switch (dst->src[0]->type) {
        case GGML_TYPE_F32:
            return share(params, dst, [=](int64_t number) {
                const float * from = row<float>(dst->src[0], number);
                std::transform(from, from + dst->width, row<float>(dst, number), [=](float value) {
                    return std::clamp(value, dst->limits[0], dst->limits[1]);
                });
            });
        case GGML_TYPE_Q8_0:
        default:
            refuse("clamp", dst->src[0]);
    }
}

void ggml_compute_forward_get_rows(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * table = dst->src[0];
    switch (table->type) {
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            return share(params, dst, [=](int64_t number) {
                const int32_t wanted = row<int32_t>(dst->src[1], 0)[number];
                GGML_ASSERT(wanted >= 0 && wanted < table->rows);
                ggml_get_type_traits(table->type)->to_float(
                    row<void>(table, wanted), row<float>(dst, number), table->width);
            });
        default:
            refuse("get_rows", table);
    }
}

void ggml_compute_forward_out_prod(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * summands = dst->src[0];
    switch (summands->type) {
        case GGML_TYPE_F16:
        case GGML_TYPE_F32:
        case GGML_TYPE_Q4_0:
        case GGML_TYPE_Q8_0:
            return share(params, dst, [=](int64_t number) {
                float * sum = row<float>(dst, number);
                std::fill_n(sum, dst->width, 0.0f);
                for (int64_t i = 0; i < summands->rows; i++) {
                    const float   weight = row<float>(dst->src[1], i)[number];
                    const float * values = decoded(params, summands, i);
                    for (int64_t column = 0; column < dst->width; column++) {
                        sum[column] += weight * values[column];
                    }
                }
            });
        default:
            refuse("out_prod", summands);
    }
}
