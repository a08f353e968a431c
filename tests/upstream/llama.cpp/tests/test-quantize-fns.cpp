// Every type that floats can become: what a round trip costs, whether the fast conversion does as the reference, and
// what becomes of an inner product.

#include "ggml-cpu.h"
#include "values.h"

#include <cmath>

// The largest errors, by how many bits a type has; those without a type of the miniature serve types that are added.
// A round trip's is the norm of the error over that of the values. An inner product's is over both norms: that of
// independent vectors comes out smaller by the root of how many values they have.
constexpr float MAX_QUANTIZATION_TOTAL_ERROR = 0.12f;
[[maybe_unused]] constexpr float MAX_QUANTIZATION_TOTAL_ERROR_3BITS = 0.21f;
constexpr float MAX_QUANTIZATION_TOTAL_ERROR_2BITS = 0.36f;
constexpr float MAX_DOT_PRODUCT_ERROR = 0.006f;
constexpr float MAX_DOT_PRODUCT_ERROR_LOWBIT = 0.012f;
[[maybe_unused]] constexpr float MAX_DOT_PRODUCT_ERROR_TERNARY = 0.022f;

using floats = std::vector<float>;

static double dot(const floats & a, const floats & b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static double norm(const floats & a) {
    return sqrt(dot(a, a));
}

struct checks {
    ggml_type type;
    int       failed = 0;

    void operator()(const char * what, double error, double limit) {
        const bool good = error <= limit;
        printf("%s: %s %s: %g, may be %g\n", good ? "good" : "BAD", ggml_type_name(type), what, error, limit);
        failed += !good;
    }
};

// Of a row in the type and the values that it was made of.
static double round_trip_error(ggml_type type, const void * row, floats values) {
    floats back(values.size());
    ggml_get_type_traits(type)->to_float(row, back.data(), (int64_t) back.size());
    const double whole = norm(values);
    for (float & value : values) {
        value -= back[&value - values.data()];
    }
    return norm(values) / whole;
}

static int check_type(ggml_type type) {
    const floats a = gaussian(4096, 11), b = gaussian(4096, 12);
    const int64_t n = (int64_t) a.size();
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(type);
    const size_t size = ggml_row_size(type, n);
    std::vector<uint8_t> fast(size), reference(size), other(ggml_row_size(traits->vec_dot_type, n));
    traits->from_float(a.data(), fast.data(), n);
    ggml_get_type_traits(type)->from_float_ref(a.data(), reference.data(), n);
    ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(b.data(), other.data(), n);

    checks check = { type };
    const float most_lost =
        type == GGML_TYPE_Q2_K ? MAX_QUANTIZATION_TOTAL_ERROR_2BITS :
        MAX_QUANTIZATION_TOTAL_ERROR;
    check("round trip", round_trip_error(type, fast.data(), a), most_lost);
    check("reference", round_trip_error(type, reference.data(), a), most_lost);
    check("bytes that differ from the reference", fast != reference, 0);
    check("blocks that are not valid", !ggml_validate_row_data(type, fast.data(), size), 0);

    const float most_off = type == GGML_TYPE_Q2_K
        ? MAX_DOT_PRODUCT_ERROR_LOWBIT
        : MAX_DOT_PRODUCT_ERROR;
    float product = NAN;
    traits->vec_dot((int) n, &product, 0, fast.data(), 0, other.data(), 0, 1);
    check("inner product", fabs(product - dot(a, b)) / (norm(a) * norm(b)), most_off);
    return check.failed;
}

int main() {
    int failed = 0;
    for (int number = 0; number < GGML_TYPE_COUNT; number++) {
        const ggml_type type = (ggml_type) number;
        failed += ggml_get_type_traits_cpu(type)->from_float ? check_type(type) : 0;
    }
    return failed > 0;
}
