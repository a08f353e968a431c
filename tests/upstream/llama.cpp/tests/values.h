// Numbers to test with.
#pragma once

#include <cstdint>
#include <vector>

// Nearly Gaussian values of variance 1: four uniform numbers out of one 64-bit one (splitmix64), summed.
inline std::vector<float> gaussian(size_t n, uint64_t seed) {
    std::vector<float> x(n);
    for (float & value : x) {
        uint64_t bits = seed += 0x9e3779b97f4a7c15u;
        bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
        bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
        bits ^= bits >> 31;
        const uint32_t sum = (uint32_t) ((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
        value = ((float) sum - 131070.0f) / 37837.2f; // 65536 / sqrt(3)
    }
    return x;
}
