// What the parts of turbo-probe share.
#pragma once

#include "ggml-backend.h"
#include "ggml.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

using floats = std::vector<float>;
using bytes  = std::vector<uint8_t>;

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
    // Gaussian but for every eighth block: in turn, its magnitudes are nearly the same, or two outweigh all others. All
    // blocks have about the same energy, so that none counts for more.
    floats mixed(int64_t n, int64_t block) {
        floats values = gaussians(n);
        for (int64_t at = 0; at + block <= n; at += 8 * block) {
            float * x = &values[at];
            if (at % (16 * block) == 0) {
                std::transform(x, x + block, x, [](float value) { return value / 32 + (value < 0 ? -1.0f : 1.0f); });
            } else {
                std::transform(x, x + block, x, [](float value) { return value / 9; });
                x[at / block % block] = 5.5f;
                x[at / block / 8 % block] = -5.5f;
            }
        }
        return values;
    }
};

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

inline int64_t differences(const bytes & a, const bytes & b) {
    int64_t found = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        found += a[i] != b[i];
    }
    return found;
}

inline int64_t differences(const floats & a, const floats & b, float factor = 1.0f) {
    int64_t found = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        found += !(a[i] * factor == b[i]);
    }
    return found;
}

// The operations of a graph on a device, as a JSON list of how each compares with the reference.
void print_operations(ggml_backend_dev_t dev, ggml_backend_t backend, const kind & k, uint64_t seed);

// Whether the device stores rows of a cache, which is the first thing that a model needs of it.
bool store_one(ggml_backend_dev_t dev, ggml_backend_t backend, const kind & k, uint64_t seed);

// Attention of a device over a cache of the type, and of q8_0 keys with its values: a JSON list of cases with their errors.
void print_attentions(ggml_backend_dev_t dev, ggml_backend_t backend, const kind & k, uint64_t seed);

// The device's own Hadamard transforms, as a JSON list; empty where the libraries have none.
void print_rotations(ggml_backend_dev_t dev, ggml_backend_t backend);
