// The part of turbo-probe that computes graphs: each operation of a cache on a device, held against the reference.

#include "turbo-probe.h"

#include "ggml-alloc.h"

#include <utility>

// -- operations on a device -------------------------------------------------------------------------------------------

struct device {
    ggml_backend_dev_t dev;
    ggml_backend_t     backend;
};

// One operation with its operands; `compute` leaves `out` empty on a device that does not take it.
struct operation {
    const device & on;
    ggml_context * ctx;
    std::vector<std::pair<ggml_tensor *, const void *>> inputs;

    explicit operation(const device & on) : on(on) {
        ctx = ggml_init({ 64 * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true });
    }
    ~operation() { ggml_free(ctx); }

    ggml_tensor * input(ggml_type type, int64_t width, int64_t rows, const void * data, int64_t heads = 1) {
        ggml_tensor * tensor = ggml_new_tensor_3d(ctx, type, width, rows, heads);
        inputs.emplace_back(tensor, data);
        return tensor;
    }
    template <typename T> std::vector<T> compute(ggml_tensor * node, ggml_tensor * result) {
        std::vector<T> out;
        if (!ggml_backend_dev_supports_op(on.dev, node)) {
            return out;
        }
        ggml_cgraph * graph = ggml_new_graph(ctx);
        ggml_build_forward_expand(graph, node);
        ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(ctx, on.backend);
        for (const auto & [tensor, data] : inputs) {
            ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
        }
        if (ggml_backend_graph_compute(on.backend, graph) == GGML_STATUS_SUCCESS) {
            out.resize(ggml_nbytes(result) / sizeof(T));
            ggml_backend_tensor_get(result, out.data(), 0, ggml_nbytes(result));
        }
        ggml_backend_buffer_free(buffer);
        return out;
    }
};

static bool first_operation;

static void print_operation(const char * op, size_t of, int64_t differs, double error, double reference = 0) {
    printf("%s{\"op\": \"%s\", \"of\": %zu, \"differs\": %lld, \"error\": %.9g, \"reference\": %.9g}",
           first_operation ? "" : ", ", op, of, (long long) differs, of ? error : 0.0, reference);
    first_operation = false;
}

// Root of the squared error over the energy of what should have come.
static double relative_error(const floats & wanted, const floats & got) {
    double error = 0, energy = 0;
    for (size_t i = 0; i < got.size(); ++i) {
        error += pow((double) got[i] - wanted[i], 2);
        energy += pow((double) wanted[i], 2);
    }
    const double relative = sqrt(error / energy);
    return std::isfinite(relative) ? relative : 1e9;
}

static void print_encoded(const char * op, const kind & k, const floats & values, const bytes & wanted, const bytes & got) {
    const double here = got.empty() ? 0 : relative_error(values, k.decode(got));
    print_operation(op, got.size(), got.empty() ? 0 : differences(wanted, got), here, relative_error(values, k.decode(wanted)));
}

static void print_decoded(const char * op, const floats & wanted, const floats & got) {
    print_operation(op, got.size(), got.empty() ? 0 : differences(got, wanted), relative_error(wanted, got));
}

// Attention of `queries` over all cells, for each of the heads: (head size, heads, queries), as the operation orders it.
static floats attention(const floats & q, const floats & k, const floats & v, int64_t size, int64_t queries, int64_t cells,
                        int64_t heads) {
    floats out(size * heads * queries);
    for (int64_t h = 0; h < heads; ++h) {
        for (int64_t i = 0; i < queries; ++i) {
            std::vector<double> sum(size);
            double total = 0;
            for (int64_t c = 0; c < cells; ++c) {
                double score = 0;
                for (int64_t j = 0; j < size; ++j) {
                    score += (double) q[(h * queries + i) * size + j] * k[(h * cells + c) * size + j];
                }
                const double weight = exp(score / sqrt((double) size));
                total += weight;
                for (int64_t j = 0; j < size; ++j) {
                    sum[j] += weight * v[(h * cells + c) * size + j];
                }
            }
            for (int64_t j = 0; j < size; ++j) {
                out[(i * heads + h) * size + j] = (float) (sum[j] / total);
            }
        }
    }
    return out;
}

static void print_attention(const device & on, const kind & k, random_source & random, int64_t queries) {
    const int64_t size = 128, cells = 256, heads = 2;
    const floats q = random.gaussians(size * queries * heads);
    const bytes  keys = k.encode(random.mixed(size * cells * heads, k.block), size);
    const bytes  cached = k.encode(random.mixed(size * cells * heads, k.block), size);
    operation op(on);
    ggml_tensor * tq = op.input(GGML_TYPE_F32, size, queries, q.data(), heads);
    ggml_tensor * tk = op.input(k.type, size, cells, keys.data(), heads);
    ggml_tensor * tv = op.input(k.type, size, cells, cached.data(), heads);
    ggml_tensor * out = ggml_flash_attn_ext(op.ctx, tq, tk, tv, nullptr, 1.0f / sqrtf((float) size), 0.0f, 0.0f);
    const floats got = op.compute<float>(out, out);
    const floats wanted = attention(q, k.decode(keys), k.decode(cached), size, queries, cells, heads);
    print_operation(queries == 1 ? "FLASH_ATTN_EXT of 1" : "FLASH_ATTN_EXT of many", got.size(), 0, relative_error(wanted, got));
}

void print_operations(ggml_backend_dev_t dev, ggml_backend_t backend, const kind & k, uint64_t seed) {
    const device  on     = { dev, backend };
    random_source random = { seed };
    const int64_t rows = 32, width = 512, columns = 4;
    const floats values = random.mixed(rows * width, k.block), queries = random.gaussians(columns * width);
    const bytes  blocks = k.encode(values, width), nothing(blocks.size());
    const floats decoded = k.decode(blocks);
    std::vector<int64_t> place(rows);
    std::vector<int32_t> wanted(rows);
    for (int64_t i = 0; i < rows; ++i) {
        place[i] = wanted[i] = (int32_t) i;
    }
    first_operation = true;
    printf("[");
    {
        operation op(on);
        ggml_tensor * to = op.input(k.type, width, rows, nothing.data());
        ggml_tensor * from = op.input(GGML_TYPE_F32, width, rows, values.data());
        ggml_tensor * node = ggml_set_rows(op.ctx, to, from, op.input(GGML_TYPE_I64, rows, 1, place.data()));
        print_encoded("SET_ROWS", k, values, blocks, op.compute<uint8_t>(node, to));
    }
    {
        operation op(on);
        ggml_tensor * to = op.input(k.type, width, rows, nothing.data());
        ggml_tensor * node = ggml_cpy(op.ctx, op.input(GGML_TYPE_F32, width, rows, values.data()), to);
        print_encoded("CPY to it", k, values, blocks, op.compute<uint8_t>(node, to));
    }
    {
        operation op(on);
        ggml_tensor * from = op.input(k.type, width, rows, blocks.data());
        ggml_tensor * node = ggml_get_rows(op.ctx, from, op.input(GGML_TYPE_I32, rows, 1, wanted.data()));
        print_decoded("GET_ROWS", decoded, op.compute<float>(node, node));
    }
    {
        operation op(on);
        ggml_tensor * from = op.input(k.type, width, rows, blocks.data());
        ggml_tensor * to = ggml_new_tensor_2d(op.ctx, GGML_TYPE_F32, width, rows);
        print_decoded("CPY from it", decoded, op.compute<float>(ggml_cpy(op.ctx, from, to), to));
    }
    {
        operation op(on);
        ggml_tensor * from = op.input(k.type, width, rows, blocks.data());
        ggml_tensor * node = ggml_mul_mat(op.ctx, from, op.input(GGML_TYPE_F32, width, columns, queries.data()));
        const floats got = op.compute<float>(node, node);
        floats products(rows * columns);
        for (int64_t i = 0; i < rows * columns; ++i) {
            double sum = 0;
            for (int64_t j = 0; j < width; ++j) {
                sum += (double) decoded[i % rows * width + j] * queries[i / rows * width + j];
            }
            products[i] = (float) sum;
        }
        print_operation("MUL_MAT", got.size(), 0, relative_error(products, got));
    }
    print_attention(on, k, random, 1);
    print_attention(on, k, random, 40);
    printf("]");
}

// -- the rotation -----------------------------------------------------------------------------------------------------

#ifdef TURBO_PROBE_HINT

// What a device makes of a product of n rows of `values` with a matrix that is marked as Hadamard's.
static floats transformed(const device & on, int64_t n, const floats & matrix, const floats & values) {
    operation op(on);
    ggml_tensor * node = ggml_mul_mat(op.ctx, op.input(GGML_TYPE_F32, n, n, matrix.data()),
                                      op.input(GGML_TYPE_F32, n, n, values.data()));
    ggml_mul_mat_set_hint(node, GGML_HINT_SRC0_IS_HADAMARD);
    return op.compute<float>(node, node);
}

static void print_rotation(const device & on, int64_t n, bool first) {
    floats identity(n * n), matrix(n * n);
    for (int64_t i = 0; i < n * n; ++i) {
        int64_t common = i / n & i % n;
        bool    odd    = false;
        for (; common; common &= common - 1) {
            odd = !odd;
        }
        identity[i] = i / n == i % n;
        matrix[i] = (odd ? -1.0f : 1.0f) / sqrtf((float) n);
    }
    const floats once = transformed(on, n, matrix, identity);
    const floats twice = once.empty() ? once : transformed(on, n, matrix, once);
    double off = 0, back = 0, skew = 0;
    for (size_t i = 0; i < once.size(); ++i) {
        double product = 0;
        for (int64_t j = 0; j < n; ++j) {
            product += (double) once[i / n * n + j] * once[i % n * n + j];
        }
        skew = std::max(skew, fabs(product - identity[i]));
        back = std::max(back, fabs((double) twice[i] - identity[i]));
        off  = std::max(off, fabs(fabs((double) once[i]) * sqrt((double) n) - 1));
    }
    printf("%s{\"n\": %lld, \"done\": %s, \"entries\": %.9g, \"skew\": %.9g, \"twice\": %.9g}", first ? "" : ", ",
           (long long) n, once.empty() ? "false" : "true", off, skew, back);
}

#endif

void print_rotations(ggml_backend_dev_t dev, ggml_backend_t backend) {
    printf("[");
#ifdef TURBO_PROBE_HINT
    const device on = { dev, backend };
    for (int64_t n = 64; backend && n <= 128; n *= 2) {
        print_rotation(on, n, n == 64);
    }
#else
    (void) dev, (void) backend;
#endif
    printf("]");
}
