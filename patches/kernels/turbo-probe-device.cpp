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

// -- attention --------------------------------------------------------------------------------------------------------

enum mask_kind { MASK_NONE, MASK_CAUSAL, MASK_EMPTY };

static const char * const MASK_NAMES[] = { "none", "causal", "empty" };

// Whether query i of `queries` sees a cell. `causal`: the queries are the last tokens of those in the cells, of which the
// last are still free, as in a cache that is not full. `empty`: whole tiles of free cells as well, and no cell at all
// for every eighth of many queries, as in rows that only fill a batch up.
static bool sees(mask_kind mask, int64_t i, int64_t queries, int64_t cell, int64_t cells) {
    const int64_t last = cells - 39 - queries + i;
    switch (mask) {
        case MASK_NONE: return true;
        case MASK_CAUSAL: return cell <= last;
        default: return cell <= last && cell / 64 % 2 == 1 && !(queries > 1 && i % 8 == 3);
    }
}

// One head of attention, of which all query heads of a group use the same keys and values.
struct attention_case {
    kind      k, v;
    int64_t   size, queries, heads, kv_heads;
    mask_kind mask;
};

static const int64_t CELLS = 256;

// (head size, heads, queries), as the operation orders it; zeros for a query that sees no cell.
static floats attention(const attention_case & c, const floats & q, const floats & k, const floats & v) {
    floats out(c.size * c.heads * c.queries);
    std::vector<double> sum(c.size);
    for (int64_t h = 0; h < c.heads; ++h) {
        const int64_t shared = h / (c.heads / c.kv_heads);
        for (int64_t i = 0; i < c.queries; ++i) {
            std::fill(sum.begin(), sum.end(), 0.0);
            double total = 0;
            for (int64_t cell = 0; cell < CELLS; ++cell) {
                if (!sees(c.mask, i, c.queries, cell, CELLS)) {
                    continue;
                }
                const float * key = &k[(shared * CELLS + cell) * c.size], * value = &v[(shared * CELLS + cell) * c.size];
                double score = 0;
                for (int64_t j = 0; j < c.size; ++j) {
                    score += (double) q[(h * c.queries + i) * c.size + j] * key[j];
                }
                const double weight = exp(score / sqrt((double) c.size));
                total += weight;
                for (int64_t j = 0; j < c.size; ++j) {
                    sum[j] += weight * value[j];
                }
            }
            for (int64_t j = 0; j < c.size; ++j) {
                out[(i * c.heads + h) * c.size + j] = total > 0 ? (float) (sum[j] / total) : 0.0f;
            }
        }
    }
    return out;
}

// The largest relative error of a query, without those that see no cell: their result has no meaning.
static double worst_error(const attention_case & c, const floats & wanted, const floats & got) {
    const int64_t width = c.size * c.heads;
    double worst = 0;
    for (int64_t i = 0; i < c.queries; ++i) {
        const floats a(&wanted[i * width], &wanted[i * width] + width), b(&got[i * width], &got[i * width] + width);
        if (std::any_of(a.begin(), a.end(), [](float value) { return value != 0; })) {
            worst = std::max(worst, relative_error(a, b));
        }
    }
    return worst;
}

// Keys and values of every size, encoded once.
struct cached {
    bytes  blocks;
    floats decoded;
};

static void print_attention(const device & on, const attention_case & c, const cached & k, const cached & v, uint64_t seed,
                            bool first) {
    const int64_t padded = (c.queries + 63) / 64 * 64;  // older builds require a whole number of tiles
    random_source random = { seed };
    const floats q = random.gaussians(c.size * c.queries * c.heads);
    std::vector<uint16_t> hidden(CELLS * padded, 0xfc00);  // minus infinity in half precision
    for (int64_t i = 0; i < c.queries; ++i) {
        for (int64_t cell = 0; cell < CELLS; ++cell) {
            hidden[i * CELLS + cell] = sees(c.mask, i, c.queries, cell, CELLS) ? 0 : 0xfc00;
        }
    }
    operation op(on);
    ggml_tensor * tq = op.input(GGML_TYPE_F32, c.size, c.queries, q.data(), c.heads);
    ggml_tensor * tk = op.input(c.k.type, c.size, CELLS, k.blocks.data(), c.kv_heads);
    ggml_tensor * tv = op.input(c.v.type, c.size, CELLS, v.blocks.data(), c.kv_heads);
    ggml_tensor * mask = c.mask == MASK_NONE ? nullptr : op.input(GGML_TYPE_F16, CELLS, padded, hidden.data());
    ggml_tensor * out = ggml_flash_attn_ext(op.ctx, tq, tk, tv, mask, 1.0f / sqrtf((float) c.size), 0.0f, 0.0f);
    const floats got = op.compute<float>(out, out);
    const double error = got.empty() ? 0 : worst_error(c, attention(c, q, k.decoded, v.decoded), got);
    printf("%s{\"k\": \"%s\", \"v\": \"%s\", \"head_size\": %lld, \"queries\": %lld, \"heads\": %lld, \"kv_heads\": %lld, "
           "\"mask\": \"%s\", \"of\": %zu, \"error\": %.9g}", first ? "" : ",\n  ", ggml_type_name(c.k.type),
           ggml_type_name(c.v.type), (long long) c.size, (long long) c.queries, (long long) c.heads, (long long) c.kv_heads,
           MASK_NAMES[c.mask], got.size(), error);
}

void print_attentions(ggml_backend_dev_t dev, ggml_backend_t backend, const kind & k, uint64_t seed) {
    const device on = { dev, backend };
    const kind   q8 = { GGML_TYPE_Q8_0, ggml_get_type_traits(GGML_TYPE_Q8_0)->blck_size, ggml_type_size(GGML_TYPE_Q8_0) };
    bool first = true;
    printf("[");
    for (int64_t size : { 64, 128, 256 }) {
        const int64_t most = 2;
        const auto cache = [&](const kind & of, uint64_t which) {
            random_source random = { seed + which };
            cached made;
            made.blocks = of.encode(random.mixed(size * CELLS * most, of.block), size);
            made.decoded = of.decode(made.blocks);
            return made;
        };
        const cached own = cache(k, 1), other = cache(q8, 1), values = cache(k, 2);
        for (const bool mixed : { false, true }) {
            for (const mask_kind mask : { MASK_NONE, MASK_CAUSAL, MASK_EMPTY }) {
                for (const int64_t queries : { 1, 40 }) {
                    for (const int64_t heads : { 8, 2 }) {
                        if (heads == most && (mixed || mask != MASK_CAUSAL)) {
                            continue;  // without groups, one mask is enough
                        }
                        const attention_case c = { mixed ? q8 : k, k, size, queries, heads, most, mask };
                        print_attention(on, c, mixed ? other : own, values, seed + 3, first);
                        first = false;
                    }
                }
            }
        }
    }
    printf("]");
}

// -- the operations of a cache ----------------------------------------------------------------------------------------

bool store_one(ggml_backend_dev_t dev, ggml_backend_t backend, const kind & k, uint64_t seed) {
    const device  on     = { dev, backend };
    random_source random = { seed };
    const int64_t width = 256, place = 0;
    const floats  values = random.gaussians(width);
    const bytes   nothing(width / k.block * k.size);
    operation op(on);
    ggml_tensor * to = op.input(k.type, width, 1, nothing.data());
    ggml_tensor * from = op.input(GGML_TYPE_F32, width, 1, values.data());
    ggml_tensor * node = ggml_set_rows(op.ctx, to, from, op.input(GGML_TYPE_I64, 1, 1, &place));
    return !op.compute<uint8_t>(node, to).empty();
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
    printf("]");
}

// -- the rotation -----------------------------------------------------------------------------------------------------

#ifdef TURBO_PROBE_TURN

#include "ggml-turbo-rotation.h"

// What a device makes of n rows of `values` as keys of a cache. The matrix is the library's own.
static floats transformed(const device & on, int64_t n, const floats &, const floats & values) {
    int type = 0;
    while (!ggml_turbo_turns((ggml_type) type)) {
        ++type;
    }
    operation op(on);
    const bytes   blocks(ggml_row_size((ggml_type) type, n));
    ggml_tensor * cache = op.input((ggml_type) type, n, 1, blocks.data());
    ggml_tensor * node  = ggml_turbo_turn_k(op.ctx, cache, op.input(GGML_TYPE_F32, n, n, values.data()));
    return op.compute<float>(node, node);
}

#elif defined(TURBO_PROBE_HINT)

// What a device makes of a product of n rows of `values` with a matrix that is marked as Hadamard's.
static floats transformed(const device & on, int64_t n, const floats & matrix, const floats & values) {
    operation op(on);
    ggml_tensor * node = ggml_mul_mat(op.ctx, op.input(GGML_TYPE_F32, n, n, matrix.data()),
                                      op.input(GGML_TYPE_F32, n, n, values.data()));
    ggml_mul_mat_set_hint(node, GGML_HINT_SRC0_IS_HADAMARD);
    return op.compute<float>(node, node);
}

#endif

#if defined(TURBO_PROBE_TURN) || defined(TURBO_PROBE_HINT)

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
#if defined(TURBO_PROBE_TURN) || defined(TURBO_PROBE_HINT)
    const device on = { dev, backend };
    for (int64_t n = 64; backend && n <= 128; n *= 2) {
        print_rotation(on, n, n == 64);
    }
#else
    (void) dev, (void) backend;
#endif
    printf("]");
}
