// turbo-probe: what the built libraries do with cache types, as one JSON document of plain numbers. It states, and leaves
// the judging to others; of the types it knows no more than that a block begins with its radius in half precision, that
// a value is a whole number of 128ths of it, and that its sign says which of two codebooks that number is from.
//
//   turbo-probe SEED TYPE...       everything about the types
//   turbo-probe start SEED TYPE    the seconds until each device has done one operation
//   turbo-probe decode TYPE        blocks from stdin as floats to stdout

#include "turbo-probe.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>

static const int64_t ROWS = 128, WIDTH = 1024;
static const float   UNIT = 128;

// -- a type -----------------------------------------------------------------------------------------------------------

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

// What the blocks of one codebook have in common.
struct codebook {
    struct tally { int64_t count; double sum; };
    std::map<int, tally> levels;
    int64_t blocks = 0, inexact = 0;
    double fraction = 0, distortion = 0, error = 0, refitted = 0, off = 0;

    void add(const kind & k, float scale, const float * value, const float * decoded) {
        double squares = 0, dot = 0, energy = 0, wrong = 0;
        ++blocks;
        if (scale == 0 || !std::isfinite(scale)) {
            inexact += k.block;
            return;
        }
        for (int64_t j = 0; j < k.block; ++j) {
            const double ratio = (double) decoded[j] / scale, wanted = (double) value[j] / scale;
            const int level = std::isfinite(ratio) ? (int) std::min(std::max(std::round(ratio), -1e6), 1e6) : 0;
            fraction = std::max(fraction, fabs(ratio - level));
            inexact += decoded[j] != scale * (float) level;
            tally & t = levels[level];
            ++t.count;
            t.sum += wanted;
            distortion += (wanted - ratio) * (wanted - ratio);
            squares += (double) value[j] * value[j];
            dot += (double) value[j] * decoded[j];
            energy += (double) decoded[j] * decoded[j];
            wrong += pow((double) value[j] - decoded[j], 2);
        }
        error += wrong / squares;  // every block counts the same, whatever its size
        refitted += 1 - dot * dot / energy / squares;
        off = std::max(off, fabs(energy / dot - 1));
    }
    void print(const kind & k) const {
        const auto finite = [](double x, double otherwise) { return std::isfinite(x) ? x : otherwise; };
        printf("{\"blocks\": %lld, \"levels\": [", (long long) blocks);
        size_t printed = 0;
        for (const auto & [level, t] : levels) {
            if (printed++ < 1000) {
                printf("%s{\"level\": %d, \"count\": %lld, \"mean\": %.9g}", printed > 1 ? ", " : "", level,
                       (long long) t.count, t.sum / (double) t.count);
            }
        }
        printf("], \"fraction\": %.9g, \"inexact\": %lld, \"distortion\": %.9g, \"snr_db\": %.6g, \"cost\": %.6g, \"off\": %.6g}",
               finite(fraction, 1), (long long) inexact, finite(distortion / (double) (blocks * k.block), 0),
               finite(10 * log10((double) blocks / error), 0), finite(error / refitted - 1, 1e9), finite(off, 1e9));
    }
};

static void print_codebooks(const kind & k, const floats & values, const bytes & blocks, const floats & decoded) {
    codebook of[2];
    for (size_t b = 0; b * k.block < values.size(); ++b) {
        const float radius = half_to_float(radius_bits(&blocks[b * k.size]));
        of[radius < 0].add(k, radius / UNIT, &values[b * k.block], &decoded[b * k.block]);
    }
    printf("\"codebooks\": [");
    of[0].print(k);
    printf(", ");
    of[1].print(k);
    printf("]");
}

// For each bit of the radius' mantissa: of how many blocks it changes the levels, not only what they are multiplied by.
static void print_shared(const kind & k, const bytes & blocks, const floats & decoded) {
    printf("\"shared\": [");
    for (int bit = 0; bit < 10; ++bit) {
        bytes turned = blocks;
        for (size_t at = 0; at < turned.size(); at += k.size) {
            turned[at + bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
        const floats other = k.decode(turned);
        int64_t changed = 0;
        for (size_t b = 0; b * k.size < blocks.size(); ++b) {
            const float from = half_to_float(radius_bits(&blocks[b * k.size]));
            const float to   = half_to_float(radius_bits(&turned[b * k.size]));
            bool same = true;
            for (int64_t j = b * k.block; j < (int64_t) (b + 1) * k.block; ++j) {
                same = same && std::round(decoded[j] / from * UNIT) == std::round(other[j] / to * UNIT);
            }
            changed += !same;
        }
        printf("%s%lld", bit ? ", " : "", (long long) changed);
    }
    printf("]");
}

static void print_type(const char * name, const kind & k, uint64_t seed) {
    random_source random = { seed };
    floats values = random.mixed(ROWS * WIDTH, k.block), other = random.gaussians(ROWS * WIDTH);
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
    print_codebooks(k, values, blocks, decoded);
    printf(", ");
    print_shared(k, blocks, decoded);
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

static double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A GPU compiles its kernels when a process first uses them, so a new process shows what one costs.
static int start(const kind & k, uint64_t seed) {
    const double begun = seconds();
    ggml_backend_load_all();
    printf("{\"loaded_s\": %.6f, \"devices\": [", seconds() - begun);
    for (size_t d = 0; d < ggml_backend_dev_count(); ++d) {
        const ggml_backend_dev_t dev = ggml_backend_dev_get(d);
        const bool   cpu  = ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
        const double from = seconds();
        const ggml_backend_t backend = ggml_backend_dev_init(dev, nullptr);
        const double initialized = seconds() - from;
        const bool   done = backend && store_one(dev, backend, k, seed);
        printf("%s{\"name\": \"%s\", \"cpu\": %s, \"initialized_s\": %.6f, \"stored\": %s, \"ready_s\": %.6f}", d ? ", " : "",
               ggml_backend_dev_name(dev), cpu ? "true" : "false", initialized, done ? "true" : "false", seconds() - begun);
        ggml_backend_free(backend);
    }
    printf("]}\n");
    return 0;
}

int main(int count, char ** words) {
    if (count < 3) {
        fprintf(stderr, "usage: turbo-probe SEED TYPE... | turbo-probe start SEED TYPE | turbo-probe decode TYPE\n");
        return 2;
    }
    if (std::string(words[1]) == "start" && count == 4) {
        return start(kind_named(words[3]), strtoull(words[2], nullptr, 10));
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
        const ggml_backend_t backend = ggml_backend_dev_init(dev, nullptr);
        const bool cpu = ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU;
        printf("%s{\"name\": \"%s\", \"cpu\": %s, \"types\": [", d ? ",\n" : "\n", ggml_backend_dev_name(dev), cpu ? "true" : "false");
        for (size_t i = 0; backend && i < kinds.size(); ++i) {
            printf("%s{\"name\": \"%s\", \"operations\": ", i ? ",\n " : "\n ", words[i + 2]);
            print_operations(dev, backend, kinds[i], seed);
            printf(", \"attention\": ");
            print_attentions(dev, backend, kinds[i], seed);
            printf("}");
        }
        printf("], \"rotations\": ");
        print_rotations(dev, backend);
        printf("}");
        ggml_backend_free(backend);
    }
    printf("]}\n");
    return 0;
}
