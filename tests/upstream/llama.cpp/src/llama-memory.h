// What a context remembers, and how that is written down.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

// A state as it is written, and read; reading throws std::runtime_error where it ends early.
struct llama_io_write_i {
    std::string data;
    void write(const void * from, size_t size) { data.append((const char *) from, size); }
};
struct llama_io_read_i {
    const std::string & data;
    size_t              at = 0;
    void read(void * to, size_t size);
};

// What a context remembers of each layer that attends.
class llama_memory {
public:
    virtual ~llama_memory() = default;

    // Takes the keys and values of all KV heads at a position, and gives the attention of its queries over the cells up
    // to it: the heads' outputs, one after the other.
    virtual std::vector<float> attend(
        uint32_t il, uint32_t cell, std::vector<float> q, std::vector<float> k, std::vector<float> v) = 0;

    // Forgets cells [from, from + n_discard) and moves those up to n_past down, their keys to their new position.
    virtual void shift(uint32_t from, uint32_t n_discard, uint32_t n_past) = 0;

    // The first n cells: the position of each, then the rows of K of every layer, then those of V.
    virtual std::string save(uint32_t n) const = 0;

    // Takes cells that `save` gave, from the start of the text. Returns its length, or 0, and logs why, if it cannot.
    virtual size_t load(const std::string & state) = 0;
};
