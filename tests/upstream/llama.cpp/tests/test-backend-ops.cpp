// The operations that a cache uses, on every type, each compared with the same operation on floats.

#include "ggml-cpu.h"
#include "../ggml/src/ggml-cpu/ops.h"
#include "../src/llama-kv-cache.h"
#include "values.h"

#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

using floats = std::vector<float>;

// What one conversion to a type of b bits per value may cost, relative to the values: about 2^-b.
static double cost(ggml_type type) {
    return 2.5 * pow(2.0, -8.0 * (double) ggml_type_size(type) / (double) ggml_get_type_traits(type)->blck_size) + 1e-3;
}

struct comparison {
    virtual ~comparison() = default;
    virtual std::string name() const = 0;
    virtual double limit() const = 0;
    virtual void run(floats & expected, floats & got) = 0;

    bool holds() {
        floats expected, got;
        run(expected, got);
        double error = 0, energy = 0;
        for (size_t at = 0; at < expected.size(); at++) {
            error  += pow(got[at] - expected[at], 2);
            energy += pow(expected[at], 2);
        }
        const double relative = sqrt(error / energy);
        printf("%s: %s: %g\n", relative < limit() ? "good" : "BAD", name().c_str(), relative);
        return relative < limit();
    }
};

struct test_rows : comparison {
    const std::string op;
    const ggml_type   type;

    test_rows(const std::string & op, ggml_type type) : op(op), type(type) {}
    std::string name() const override { return op + "(type=" + ggml_type_name(type) + ")"; }
    double limit() const override { return 2 * cost(type); }

    void run(floats & expected, floats & got) override {
        const int64_t n = 256, rows = 8;
        floats a = gaussian(n * rows, 1), b = gaussian(n * rows, 2), row(n);
        std::vector<int32_t> order = { 3, 1, 7, 0, 2, 6, 5, 4 };
        std::vector<uint8_t> qa(4 * n * rows), result(4 * n * rows);
        ggml_quantize_chunk(type, a.data(), qa.data(), 0, rows, n, nullptr);
        ggml_tensor src0 = ggml_rows(type, n, rows, qa.data());
        ggml_tensor src1 = ggml_rows(GGML_TYPE_F32, n, rows, b.data());
        ggml_tensor dst  = ggml_rows(type, n, rows, result.data());
        const ggml_compute_params params = { 0, 1, row.data(), n };
        got.resize(n * rows);
        expected.resize(n * rows);
        if (op == "GET_ROWS") {
            src1 = ggml_rows(GGML_TYPE_I32, rows, 1, order.data());
            dst  = ggml_rows(GGML_TYPE_F32, n, rows, got.data());
        } else if (op == "OUT_PROD") {
            src1 = ggml_rows(GGML_TYPE_F32, 1, rows, b.data());
            dst  = ggml_rows(GGML_TYPE_F32, n, 1, got.data());
            expected.assign(n, 0.0f);
        }
        dst.src[0] = &src0;
        dst.src[1] = &src1;
        for (int64_t i = 0; i < n * rows; i++) {
            if (op == "GET_ROWS") {
                expected[i] = a[order[i / n] * n + i % n];
            } else if (op == "OUT_PROD") {
                expected[i % n] += a[i] * b[i / n];
            } else {
                expected[i] = a[i] + (op == "ADD" ? b[i] : b[0]);
            }
        }
        if (op == "GET_ROWS") {
            ggml_compute_forward_get_rows(&params, &dst);
        } else if (op == "OUT_PROD") {
            ggml_compute_forward_out_prod(&params, &dst);
        } else {
            (op == "ADD" ? ggml_compute_forward_add : ggml_compute_forward_add1)(&params, &dst);
            ggml_get_type_traits(type)->to_float(result.data(), got.data(), n * rows);
        }
    }
};

// Attention over a cache of the two types; the arguments are in upstream's order, and the miniature has no masks,
// sinks, biases or other precisions than its one.
struct test_flash_attn_ext : comparison {
    const int64_t   hs, nh, nr, kv, nb;
    const ggml_type type_K, type_V;

    // Converting takes most of a test's time, and cases that differ in their queries alone can share a cache.
    const llama_kv_cache & filled(const floats & k, const floats & v) const {
        static std::map<std::array<int64_t, 5>, llama_kv_cache> caches;
        const std::array<int64_t, 5> key = { hs, nh, kv, type_K, type_V };
        auto it = caches.find(key);
        if (it == caches.end()) {
            const llama_hparams hparams = { kv, nh * hs, 1, nh, nh, hs, hs, 0, 0, 1e-5f, 10000.0f };
            it = caches.emplace(key, llama_kv_cache(hparams, type_K, type_V, (uint32_t) kv)).first;
            for (int64_t i = 0; i < kv; i++) {
                const size_t at = i * nh * hs, end = at + nh * hs;
                it->second.store(0, (uint32_t) i, floats(&k[at], &k[0] + end), floats(&v[at], &v[0] + end));
            }
        }
        return it->second;
    }

    test_flash_attn_ext(int64_t hsk, int64_t hsv, int64_t nh, std::array<int64_t, 2> nr23, int64_t kv, int64_t nb,
            bool mask, bool sinks, float max_bias, float logit_softcap, ggml_prec prec, ggml_type type_K, ggml_type type_V) :
        hs(hsk), nh(nh), nr(nr23[0]), kv(kv), nb(nb), type_K(type_K), type_V(type_V) {
        GGML_ASSERT(hsk == hsv && nr23[1] == 1 && mask && !sinks && max_bias == 0.0f && logit_softcap == 0.0f && prec == GGML_PREC_F32);
    }
    std::string name() const override {
        return "FLASH_ATTN_EXT(hs=" + std::to_string(hs) + ",nr=" + std::to_string(nr) + ",nb=" + std::to_string(nb) +
               ",type_K=" + ggml_type_name(type_K) + ",type_V=" + ggml_type_name(type_V) + ")";
    }
    double limit() const override { return 1.5 * hypot(cost(type_K), cost(type_V)); }

    void run(floats & expected, floats & got) override {
        const floats k = gaussian(kv * nh * hs, 1), v = gaussian(kv * nh * hs, 2), q = gaussian(nb * nh * nr * hs, 3);
        const llama_kv_cache & cache = filled(k, v);
        // The miniature attends to one query at a time, so the two that see the fewest and the most cells stand for all.
        for (int64_t query = 0; query < nb; query += nb > 1 ? nb - 1 : 1) {
            const int64_t seen = kv - nb + query + 1;
            const floats heads(&q[query * nh * nr * hs], &q[0] + (query + 1) * nh * nr * hs);
            const floats out = cache.attend(0, (uint32_t) seen, heads);
            got.insert(got.end(), out.begin(), out.end());
            for (int64_t h = 0; h < nh * nr; h++) {
                floats exact(hs);
                float sum = 0;
                for (int64_t i = 0; i < seen; i++) {
                    const int64_t at = (i * nh + h / nr) * hs;
                    float score = 0;
                    for (int64_t j = 0; j < hs; j++) {
                        score += heads[h * hs + j] * k[at + j];
                    }
                    const float weight = expf(score / sqrtf((float) hs));
                    sum += weight;
                    for (int64_t j = 0; j < hs; j++) {
                        exact[j] += weight * v[at + j];
                    }
                }
                for (const float value : exact) {
                    expected.push_back(value / sum);
                }
            }
        }
    }
};

// in additions, and fetched by row
static const ggml_type all_types[] = {
    GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_F16, GGML_TYPE_F32,
};
// in outer products
static const ggml_type other_types[] = {
    GGML_TYPE_Q4_0,
};

using comparisons = std::vector<std::unique_ptr<comparison>>;

static comparisons make_test_cases_eval() {
    comparisons test_cases;
    for (const char * op : { "GET_ROWS", "ADD", "ADD1" }) {
        for (const ggml_type type : all_types) {
            test_cases.emplace_back(new test_rows(op, type));
        }
    }
    for (const ggml_type type : other_types) {
        test_cases.emplace_back(new test_rows("OUT_PROD", type));
    }
    for (const ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0 }) {
        test_cases.emplace_back(new test_flash_attn_ext(64, 64, 4, {4, 1}, 113, 3, true, false, 0.0f, 0.0f, GGML_PREC_F32, type, type));
    }
    return test_cases;
}

int main() {
    int failed = 0;
    for (const auto & test : make_test_cases_eval()) {
        failed += !test->holds();
    }
    return failed > 0;
}
