// Every type that can be converted to and from floats: round trip, agreement with the reference, inner product.

#include "ggml-cpu.h"

#include <cmath>
#include <vector>

// Limits by how many bits a type has; those of types that the miniature leaves out serve types that are added to it.
constexpr float MAX_QUANTIZATION_REFERENCE_ERROR = 0.0001f;
constexpr float MAX_QUANTIZATION_TOTAL_ERROR = 0.002f;
constexpr float MAX_QUANTIZATION_TOTAL_ERROR_2BITS = 0.0075f;
[[maybe_unused]] constexpr float MAX_QUANTIZATION_TOTAL_ERROR_3BITS = 0.0040f;
constexpr float MAX_DOT_PRODUCT_ERROR = 0.02f;
constexpr float MAX_DOT_PRODUCT_ERROR_LOWBIT = 0.04f;
[[maybe_unused]] constexpr float MAX_DOT_PRODUCT_ERROR_TERNARY = 0.15f;

// Root of the summed squared error over the number of values: the measure that upstream's limits are in.
static float array_rmse(const std::vector<float> & a, const std::vector<float> & b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return (float) (sqrt(sum) / (double) a.size());
}

static bool report(ggml_type type, const char * what, float error, float limit) {
    printf("%6s %-22s %s (%f)\n", ggml_type_name(type), what, error < limit ? "ok" : "FAILED", error);
    return error < limit;
}

static int test_vec_dot_q() {
    int num_failed = 0;
    const size_t n = 32 * 128;
    std::vector<float> a(n), b(n), back(n), back_ref(n);
    for (size_t i = 0; i < n; i++) {
        a[i] = 0.1f + 2 * cosf((float) i);
        b[i] = 0.1f + 2 * cosf((float) i + 1.0f);
    }
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        ggml_type type = (ggml_type) i;
        const ggml_type_traits * qfns = ggml_get_type_traits(type);
        const ggml_type_traits_cpu * qfns_cpu = ggml_get_type_traits_cpu(type);
        if (!qfns->to_float || !qfns_cpu->from_float) {
            continue;
        }
        std::vector<uint8_t> qa(4 * n), qb(4 * n);
        qfns->from_float_ref(a.data(), qa.data(), (int64_t) n);
        qfns->to_float(qa.data(), back_ref.data(), (int64_t) n);
        qfns_cpu->from_float(a.data(), qa.data(), (int64_t) n);
        qfns->to_float(qa.data(), back.data(), (int64_t) n);
        const float max_quantization_error =
            type == GGML_TYPE_Q2_K    ? MAX_QUANTIZATION_TOTAL_ERROR_2BITS : MAX_QUANTIZATION_TOTAL_ERROR;
        num_failed += !report(type, "absolute error", array_rmse(a, back), max_quantization_error);
        num_failed += !report(type, "against the reference", array_rmse(back, back_ref), MAX_QUANTIZATION_REFERENCE_ERROR);

        double expected = 0;
        for (size_t j = 0; j < n; j++) {
            expected += a[j] * b[j];
        }
        float result = INFINITY;
        ggml_get_type_traits_cpu(qfns_cpu->vec_dot_type)->from_float(b.data(), qb.data(), (int64_t) n);
        qfns_cpu->vec_dot((int) n, &result, 0, qa.data(), 0, qb.data(), 0, 1);
        const float max_allowed_error = type == GGML_TYPE_Q2_K
            ? MAX_DOT_PRODUCT_ERROR_LOWBIT
            : MAX_DOT_PRODUCT_ERROR;
        num_failed += !report(type, "inner product", fabsf(result - (float) expected) / (float) n, max_allowed_error);
        num_failed += !ggml_validate_row_data(type, qa.data(), ggml_row_size(type, (int64_t) n));
    }
    return num_failed;
}

int main() {
    return test_vec_dot_q() > 0;
}
