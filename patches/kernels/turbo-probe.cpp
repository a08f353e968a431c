// turbo-probe: what the built libraries do with cache types, as one JSON document of plain numbers. It states, and leaves
// the judging to others; of the types it knows no more than that a block begins with its radius in half precision.
//
//   turbo-probe SEED TYPE...       everything about the types
//   turbo-probe decode TYPE        blocks from stdin as floats to stdout

#include "ggml.h"
#include "ggml-alloc.h"
#include "ggml-backend.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

using floats = std::vector<float>;
using bytes  = std::vector<uint8_t>;

static const int64_t ROWS = 128, WIDTH = 1024;

// -- numbers ----------------------------------------------------------------------------------------------------------

// The same on every platform, which the distributions of the standard library are not.
struct random_source {
    uint64_t state;

    double uniform() {  // in (0, 1)
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return ((double) ((z ^ (z >> 31)) >> 11) + 0.5) * 0x1p-53;
    }
    float gaussian() {
        const double radius = sqrt(-2 * log(uniform()));
        return (float) (radius * cos(2 * 3.14159265358979323846 * uniform()));
    }
    floats gaussians(int64_t n) {
        floats values(n);
        std::generate(values.begin(), values.end(), [this] { return gaussian(); });
        return values;
    }
};

static uint16_t radius_bits(const uint8_t * block) {
    uint16_t half;
    memcpy(&half, block, sizeof(half));
    return half;
}

// Written out here, so that a library's own conversion is not judged by itself.
static float half_to_float(uint16_t half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const float value = exponent == 31 ? (mantissa ? NAN : INFINITY)
        : ldexpf((float) (exponent ? mantissa + 1024 : mantissa), (exponent ? exponent : 1) - 25);
    return half & 0x8000 ? -value : value;
}

// -- a type -----------------------------------------------------------------------------------------------------------

struct kind {
    ggml_type type;
    int64_t   block;
    size_t    size;

    bytes encode(const floats & values, int64_t width) const {
        bytes blocks(values.size() / block * size);
        ggml_quantize_chunk(type, values.data(), blocks.data(), 0, (int64_t) values.size() / width, width, nullptr);
        return blocks;
    }
    floats decode(const bytes & blocks) const {
        floats values(blocks.size() / size * block);
        ggml_get_type_traits(type)->to_float(blocks.data(), values.data(), (int64_t) values.size());
        return values;
    }
};

static kind kind_named(const std::string & name) {
    for (int id = 0; id < GGML_TYPE_COUNT; ++id) {
        const char * known = ggml_type_name((ggml_type) id);
        if (known && name == known && ggml_type_size((ggml_type) id) > 0) {
            const ggml_type type = (ggml_type) id;
            return { type, ggml_get_type_traits(type)->blck_size, ggml_type_size(type) };
        }
    }
    fprintf(stderr, "turbo-probe: these libraries have no type %s\n", name.c_str());
    exit(2);
}

static int64_t differences(const bytes & a, const bytes & b) {
    int64_t found = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        found += a[i] != b[i];
    }
    return found;
}

static int64_t differences(const floats & a, const floats & b, float factor = 1.0f) {
    int64_t found = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        found += !(a[i] * factor == b[i]);
    }
    return found;
}

// `of` with its blocks in reverse order.
static bytes reversed(const kind & k, const bytes & of) {
    bytes result;
    for (size_t at = of.size(); at > 0; at -= k.size) {
        result.insert(result.end(), &of[at - k.size], &of[at - k.size] + k.size);
    }
    return result;
}

// Values in the same order as the blocks of `reversed`.
static floats reversed(const kind & k, const floats & of) {
    floats result;
    for (size_t at = of.size(); at > 0; at -= k.block) {
        result.insert(result.end(), &of[at - k.block], &of[at - k.block] + k.block);
    }
    return result;
}

static void print_levels(const kind & k, const floats & values, const bytes & blocks, const floats & decoded) {
    struct tally { int64_t count; double sum; };
    std::map<int, tally> levels;
    double fraction = 0, distortion = 0, error = 0;
    int64_t inexact = 0, count = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        const float radius = half_to_float(radius_bits(&blocks[i / k.block * k.size]));
        if (!(radius > 0.0f)) {
            ++inexact;
            continue;
        }
        const double ratio = (double) decoded[i] / radius, value = (double) values[i] / radius;
        const int level = (int) std::min(std::max(std::round(ratio), -1e6), 1e6);
        fraction = std::max(fraction, fabs(ratio - level));
        inexact += decoded[i] != radius * (float) level;
        tally & t = levels[level];
        ++t.count;
        t.sum += value;
        distortion += (value - ratio) * (value - ratio);
        ++count;
    }
    for (size_t b = 0; b < values.size(); b += k.block) {  // every block counts the same, whatever its size
        double e = 0, s = 0;
        for (int64_t j = 0; j < k.block; ++j) {
            e += pow((double) values[b + j] - decoded[b + j], 2);
            s += pow((double) values[b + j], 2);
        }
        error += e / s;
    }
    printf("\"levels\": [");
    size_t printed = 0;
    for (const auto & [level, t] : levels) {
        if (printed++ < 1000) {
            printf("%s{\"level\": %d, \"count\": %lld, \"mean\": %.9g}", printed > 1 ? ", " : "", level,
                   (long long) t.count, t.sum / (double) t.count);
        }
    }
    printf("], \"fraction\": %.9g, \"inexact\": %lld, \"distortion\": %.9g, \"snr_db\": %.6g", fraction,
           (long long) inexact, distortion / (double) std::max<int64_t>(count, 1), 10 * log10((double) (values.size() / k.block) / error));
}

static void print_type(const char * name, const kind & k, uint64_t seed) {
    random_source random = { seed };
    floats values = random.gaussians(ROWS * WIDTH), other = random.gaussians(ROWS * WIDTH);
    for (int64_t i = 0; i < ROWS * WIDTH; i += k.block) {  // radii of every mantissa, over many exponents
        const float scale = (float) exp2(12 * random.uniform() - 4);
        for (int64_t j = 0; j < k.block; ++j) {
            values[i + j] *= scale;
        }
    }
    const bytes  blocks  = k.encode(values, WIDTH);
    const floats decoded = k.decode(blocks);

    // Whatever is kept outside of the blocks is another after this.
    for (float & value : other) {
        value *= 977.0f;
    }
    k.decode(k.encode(other, WIDTH));
    const floats later    = k.decode(blocks);
    const floats moved    = k.decode(reversed(k, blocks));
    const bytes  narrow   = k.encode(values, k.block);
    const bytes  turned   = k.encode(reversed(k, values), WIDTH);

    bytes doubled = blocks;
    int64_t mantissa[10] = { 0 }, radii = 0;
    for (size_t at = 0; at < doubled.size(); at += k.size) {
        const uint16_t half = radius_bits(&blocks[at]), twice = (uint16_t) (half + 0x400);
        memcpy(&doubled[at], &twice, sizeof(twice));
        ++radii;
        for (int bit = 0; bit < 10; ++bit) {
            mantissa[bit] += half >> bit & 1;
        }
    }
    printf("{\"name\": \"%s\", \"block\": %lld, \"bytes\": %zu, \"values\": %zu, ", name, (long long) k.block, k.size,
           values.size());
    print_levels(k, values, blocks, decoded);
    printf(", \"later\": %lld, \"moved\": %lld, \"narrow\": %lld, \"turned\": %lld, \"doubled\": %lld",
           (long long) differences(decoded, later), (long long) differences(reversed(k, decoded), moved),
           (long long) differences(blocks, narrow), (long long) differences(reversed(k, blocks), turned),
           (long long) differences(decoded, k.decode(doubled), 2.0f));
    printf(", \"radii\": %lld, \"mantissa\": [", (long long) radii);
    for (int bit = 0; bit < 10; ++bit) {
        printf("%s%lld", bit ? ", " : "", (long long) mantissa[bit]);
    }
    printf("]}");
}

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
    const bytes  keys = k.encode(random.gaussians(size * cells * heads), size);
    const bytes  cached = k.encode(random.gaussians(size * cells * heads), size);
    operation op(on);
    ggml_tensor * tq = op.input(GGML_TYPE_F32, size, queries, q.data(), heads);
    ggml_tensor * tk = op.input(k.type, size, cells, keys.data(), heads);
    ggml_tensor * tv = op.input(k.type, size, cells, cached.data(), heads);
    ggml_tensor * out = ggml_flash_attn_ext(op.ctx, tq, tk, tv, nullptr, 1.0f / sqrtf((float) size), 0.0f, 0.0f);
    const floats got = op.compute<float>(out, out);
    const floats wanted = attention(q, k.decode(keys), k.decode(cached), size, queries, cells, heads);
    print_operation(queries == 1 ? "FLASH_ATTN_EXT of 1" : "FLASH_ATTN_EXT of many", got.size(), 0, relative_error(wanted, got));
}

static void print_operations(const device & on, const kind & k, uint64_t seed) {
    random_source random = { seed };
    const int64_t rows = 32, width = 512, columns = 4;
    const floats values = random.gaussians(rows * width), queries = random.gaussians(columns * width);
    const bytes  blocks = k.encode(values, width), nothing(blocks.size());
    const floats decoded = k.decode(blocks);
    std::vector<int64_t> place(rows);
    std::vector<int32_t> wanted(rows);
    for (int64_t i = 0; i < rows; ++i) {
        place[i] = wanted[i] = (int32_t) i;
    }
    first_operation = true;
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

// -- the document -----------------------------------------------------------------------------------------------------

static int decode(const kind & k) {
    bytes blocks(k.size);
    floats values;
    while (fread(blocks.data(), k.size, 1, stdin) == 1) {
        values = k.decode(blocks);
        fwrite(values.data(), sizeof(float), values.size(), stdout);
    }
    return fflush(stdout) != 0;
}

int main(int count, char ** words) {
    if (count < 3) {
        fprintf(stderr, "usage: turbo-probe SEED TYPE... | turbo-probe decode TYPE\n");
        return 2;
    }
    if (std::string(words[1]) == "decode") {
        return decode(kind_named(words[2]));
    }
    const uint64_t seed = strtoull(words[1], nullptr, 10);
    std::vector<kind> kinds;
    for (int i = 2; i < count; ++i) {
        kinds.push_back(kind_named(words[i]));
    }
    ggml_backend_load_all();
    printf("{\"types\": [");
    for (size_t i = 0; i < kinds.size(); ++i) {
        printf("%s", i ? ",\n" : "\n");
        print_type(words[i + 2], kinds[i], seed);
    }
    printf("],\n\"devices\": [");
    for (size_t d = 0; d < ggml_backend_dev_count(); ++d) {
        const ggml_backend_dev_t dev = ggml_backend_dev_get(d);
        const device on = { dev, ggml_backend_dev_init(dev, nullptr) };
        const bool cpu = ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
        printf("%s{\"name\": \"%s\", \"cpu\": %s, \"types\": [", d ? ",\n" : "\n", ggml_backend_dev_name(dev), cpu ? "true" : "false");
        for (size_t i = 0; on.backend && i < kinds.size(); ++i) {
            printf("%s{\"name\": \"%s\", \"operations\": [", i ? ",\n " : "\n ", words[i + 2]);
            print_operations(on, kinds[i], seed);
            printf("]}");
        }
        printf("], \"rotations\": [");
#ifdef TURBO_PROBE_HINT
        for (int64_t n = 64; on.backend && n <= 128; n *= 2) {
            print_rotation(on, n, n == 64);
        }
#endif
        printf("]}");
        ggml_backend_free(on.backend);
    }
    printf("]}\n");
    return 0;
}
