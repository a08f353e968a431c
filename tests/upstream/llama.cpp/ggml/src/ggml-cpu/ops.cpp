#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

template <typename T> static T * row(const ggml_tensor * tensor, int64_t number) {
    return reinterpret_cast<T *>(static_cast<char *>(tensor->data) + number * tensor->nb[1]);
}

// The rows of a tensor that this thread has to see to.
template <typename F> static void share(const ggml_compute_params * params, const ggml_tensor * tensor, F see_to) {
    for (int64_t number = params->ith; number < tensor->ne[1]; number += params->nth) {
        see_to(number);
    }
}

// A row as floats, in the thread's own memory.
static float * decoded(const ggml_compute_params * params, const ggml_tensor * tensor, int64_t number) {
    float * values = static_cast<float *>(params->wdata);
    GGML_ASSERT(params->wsize >= ggml_row_size(GGML_TYPE_F32, tensor->ne[0]));
    ggml_get_type_traits(tensor->type)->to_float(row<void>(tensor, number), values, tensor->ne[0]);
    return values;
}

// dst = src0 + addend(row, column)
template <typename F> static void add(const ggml_compute_params * params, ggml_tensor * dst, F addend) {
    share(params, dst, [&](int64_t number) {
        float * sum = decoded(params, dst->src[0], number);
        for (int64_t column = 0; column < dst->ne[0]; column++) {
            sum[column] += addend(number, column);
        }
        ggml_get_type_traits_cpu(dst->type)->from_float(sum, row<void>(dst, number), dst->ne[0]);
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
                std::transform(from, from + dst->ne[0], row<float>(dst, number), [=](float value) {
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
                GGML_ASSERT(wanted >= 0 && wanted < table->ne[1]);
                ggml_get_type_traits(table->type)->to_float(
                    row<void>(table, wanted), row<float>(dst, number), table->ne[0]);
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
                std::fill_n(sum, dst->ne[0], 0.0f);
                for (int64_t i = 0; i < summands->ne[1]; i++) {
                    const float   weight = row<float>(dst->src[1], i)[number];
                    const float * values = decoded(params, summands, i);
                    for (int64_t column = 0; column < dst->ne[0]; column++) {
                        sum[column] += weight * values[column];
                    }
                }
            });
        default:
            refuse("out_prod", summands);
    }
}

// One query and one key after the other.
void ggml_compute_forward_flash_attn_ext(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * q = dst->src[0], * k = dst->src[1], * v = dst->src[2], * mask = dst->src[3];
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(k->type);
    const auto of_head = [](const ggml_tensor * tensor, int64_t head) {
        ggml_tensor rows = *tensor;
        rows.data = static_cast<char *>(tensor->data) + head * tensor->nb[2];
        return rows;
    };
    float scale;
    memcpy(&scale, dst->op_params, sizeof scale);
    float * weights = static_cast<float *>(params->wdata), * converted = weights + k->ne[1];
    ggml_compute_params rest = *params; // what is left of the memory
    rest.wdata  = converted + q->ne[0];
    rest.wsize -= ggml_row_size(GGML_TYPE_F32, k->ne[1] + q->ne[0]);
    GGML_ASSERT(params->nth == 1 && q->ne[3] == 1 && dst->op_params[1] == 0 && dst->op_params[2] == 0 && !dst->src[4]);

    for (int64_t head = 0; head < q->ne[2]; head++) {
        const int64_t kv_head = head / (q->ne[2] / k->ne[2]);
        const ggml_tensor queries = of_head(q, head), keys = of_head(k, kv_head);
        ggml_tensor       values  = of_head(v, kv_head);
        for (int64_t token = 0; token < q->ne[1]; token++) {
            ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(row<float>(&queries, token), converted, q->ne[0]);
            float largest = -INFINITY, sum = 0.0f;
            for (int64_t i = 0; i < k->ne[1]; i++) {
                const bool seen = !mask || row<uint16_t>(mask, token)[i] == 0; // that, or minus infinity
                weights[i] = -INFINITY;
                if (seen) {
                    traits->vec_dot((int) q->ne[0], &weights[i], 0, row<void>(&keys, i), 0, converted, 0, 1);
                }
                largest = std::max(largest, weights[i]);
            }
            for (int64_t i = 0; i < k->ne[1]; i++) {
                sum += weights[i] = expf(scale * (weights[i] - largest));
            }
            for (int64_t i = 0; i < k->ne[1]; i++) {
                weights[i] /= sum;
            }
            // the weighted sum of the values is an outer product of V with one column of weights
            ggml_tensor column = ggml_rows(GGML_TYPE_F32, 1, k->ne[1], weights);
            ggml_tensor result = ggml_rows(GGML_TYPE_F32, v->ne[0], 1,
                static_cast<char *>(dst->data) + head * dst->nb[1] + token * dst->nb[2]);
            result.src[0] = &values;
            result.src[1] = &column;
            ggml_compute_forward_out_prod(&rest, &result);
        }
    }
}
