// The operations that a cache uses, on every type, each compared with the same operation on floats.

#include "ggml-cpu.h"
#include "../ggml/src/ggml-cpu/ops.h"
#include "values.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

using floats = std::vector<float>;

// What one conversion to a type of b bits per value may cost, relative to the values: about 2^-b.
static double cost(ggml_type type) {
    return 2.5 * pow(2.0, -8.0 * (double) ggml_type_size(type) / (double) ggml_get_type_traits(type)->blck_size) + 1e-3;
}

struct test_case {
    virtual ~test_case() = default;
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

struct test_rows : test_case {
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
        const ggml_compute_params params = { 0, 1, row.data(), n * sizeof(float), nullptr, false };
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

// Attention over keys and values of the two types; the arguments are in upstream's order.
struct test_flash_attn_ext : test_case {
    const int64_t   hsk, hsv, nh, nr, kv, nb;
    const bool      mask, sinks;
    const float     max_bias, logit_softcap;
    const ggml_type type_K, type_V;

    test_flash_attn_ext(int64_t hsk = 64, int64_t hsv = 64, int64_t nh = 4, std::array<int64_t, 2> nr23 = {1, 1},
            int64_t kv = 96, int64_t nb = 8, bool mask = true, bool sinks = false, float max_bias = 0.0f,
            float logit_softcap = 0.0f, ggml_prec = GGML_PREC_F32, ggml_type type_K = GGML_TYPE_F16,
            ggml_type type_V = GGML_TYPE_F16, std::array<int32_t, 4> permute = {0, 1, 2, 3}) :
        hsk(hsk), hsv(hsv), nh(nh), nr(nr23[0]), kv(kv), nb(nb), mask(mask), sinks(sinks), max_bias(max_bias),
        logit_softcap(logit_softcap), type_K(type_K), type_V(type_V) {
        GGML_ASSERT(nr23[1] == 1 && kv >= nb && permute[3] == 3);
    }
    std::string name() const override {
        std::string text = "FLASH_ATTN_EXT(type_K=" + std::string(ggml_type_name(type_K)) + ",type_V=" + ggml_type_name(type_V);
        const std::pair<const char *, double> numbers[] = {
            { "hsk", hsk }, { "hsv", hsv }, { "nr", nr }, { "kv", kv }, { "nb", nb }, { "mask", mask }, { "sinks", sinks },
            { "max_bias", max_bias }, { "logit_softcap", logit_softcap },
        };
        for (const auto & [what, number] : numbers) {
            text += "," + std::string(what) + "=" + std::to_string((int) number);
        }
        return text + ")";
    }
    double limit() const override { return 1.5 * hypot(cost(type_K), cost(type_V)); }

    // Heads of rows, with the values and in the type. Converting takes most of a test's time, so what it gave is kept.
    ggml_tensor heads(ggml_type type, int64_t size, int64_t rows, int64_t n, const floats & values) const {
        static std::map<std::array<int64_t, 4>, std::vector<uint8_t>> kept;
        std::vector<uint8_t> & bytes = kept[{ type, size, rows, n }];
        if (bytes.empty()) {
            bytes.resize(ggml_row_size(type, size) * rows * n);
            ggml_quantize_chunk(type, values.data(), bytes.data(), 0, rows * n, size, nullptr);
        }
        ggml_tensor tensor = ggml_rows(type, size, rows, bytes.data());
        tensor.ne[2] = n;
        return tensor;
    }
    bool seen(int64_t query, int64_t key) const { return !mask || key <= kv - nb + query; }

    void run(floats & expected, floats & got) override {
        floats k = gaussian(kv * nh * hsk, 1), v = gaussian(kv * nh * hsv, 1), q = gaussian(nb * nh * nr * hsk, 3);
        floats sink = gaussian(nh * nr, 4);
        std::vector<uint16_t> hidden(kv * nb);
        for (int64_t i = 0; i < kv * nb; i++) {
            hidden[i] = seen(i / kv, i % kv) ? 0 : 0xfc00; // minus infinity
        }
        const int64_t n = nh * nr;
        ggml_tensor queries = ggml_rows(GGML_TYPE_F32, hsk, nb, q.data());
        queries.ne[2] = n;
        ggml_tensor keys = heads(type_K, hsk, kv, nh, k), values = heads(type_V, hsv, kv, nh, v);
        ggml_tensor masked = ggml_rows(GGML_TYPE_F16, kv, nb, hidden.data());
        ggml_tensor logits = ggml_rows(GGML_TYPE_F32, n, 1, sink.data());
        got.resize(nb * n * hsv);
        ggml_tensor dst = ggml_rows(GGML_TYPE_F32, hsv, n, got.data());
        dst.ne[2] = nb;
        dst.op = GGML_OP_FLASH_ATTN_EXT;
        ggml_tensor * const operands[] = { &queries, &keys, &values, mask ? &masked : nullptr, sinks ? &logits : nullptr };
        std::copy(std::begin(operands), std::end(operands), dst.src);
        const float scale = 1.0f / sqrtf((float) hsk), parameters[] = { scale, max_bias, logit_softcap };
        memcpy(dst.op_params, parameters, sizeof parameters);
        std::vector<uint8_t> work(ggml_graph_plan(&dst, 1).work_size);
        ggml_threadpool pool = { 0 };
        const ggml_compute_params params = { 0, 1, work.data(), work.size(), &pool, false };
        ggml_compute_forward_flash_attn_ext(&params, &dst);

        for (int64_t query = 0; query < nb; query++) {
            for (int64_t h = 0; h < n; h++) {
                floats exact(hsv);
                float sum = sinks ? expf(sink[h]) : 0.0f;
                for (int64_t i = 0; i < kv && seen(query, i); i++) {
                    const int64_t at = h / nr * kv + i;
                    float score = 0;
                    for (int64_t j = 0; j < hsk; j++) {
                        score += q[(h * nb + query) * hsk + j] * k[at * hsk + j];
                    }
                    score *= scale;
                    const float weight = expf(logit_softcap > 0.0f ? logit_softcap * tanhf(score / logit_softcap) : score);
                    sum += weight;
                    for (int64_t j = 0; j < hsv; j++) {
                        exact[j] += weight * v[at * hsv + j];
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

static std::vector<std::unique_ptr<test_case>> make_test_cases_eval() {
    std::vector<std::unique_ptr<test_case>> test_cases;
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
