// The core of flash attention for TurboQuant caches; see ggml-cpu-turbo-fa.h.

#include "ggml-cpu-turbo-fa.h"

#include "ggml-cpu-turbo-fa-simd.h"

#include <algorithm>
#include <cmath>

using namespace turbo_simd;

namespace {

typedef ggml_turbo_attention attention;

constexpr int64_t tile_keys   = 64;  // keys that are decoded at a time
constexpr int64_t tile_rows   = 64;  // query rows that share them, at most
constexpr int64_t columns     = 64;  // of values that are summed at a time
constexpr int64_t chunk_keys  = 512; // keys of a row that are summed one after another; see `join`
constexpr int     alignment   = 64;
constexpr int64_t expand_from = 8;   // rows for which levels are worth being converted to f32 once

constexpr uint16_t half_minus_infinity = 0xfc00;

static_assert(chunk_keys >= tile_keys, "no two chunks end in a tile");
static_assert(tile_keys % (lanes * vectors) == 0 && columns % (lanes * vectors) == 0, "tiles are whole vectors");

// What a job takes of the keys of one row, by their places in the cache, and how far it is.
struct span {
    int64_t begin, end;
    int64_t seen;  // keys that the row sees, of all up to here
    int64_t stop;  // in the present tile: where the chunk ends, or the end
    bool    full;  // the chunk is complete
    int     depth; // parts that wait
};

// What a thread works in. Sizes in elements; R = rows of a tile, K and V = sizes of a head.
struct workspace {
    float *   query;         // R * K; as int8 where keys are
    float *   query_scale;   // R * blocks
    int32_t * query_offset;  // R * blocks: what the bias of the keys has added
    float *   scores;        // R * tile_keys
    float *   weights;       // R * tile_keys
    float *   sum;           // R * V
    float *   power;         // R: exponentials are in units of 2^power, that of the largest score so far; see `soften`
    double *  mass;          // R: the sum of the exponentials
    span *    spans;         // R
    float *   kept;          // R * tile_keys: scores of a tile in which a chunk ends
    float *   joined;        // levels * R parts of a row: see `join`
    int32_t * key_rows;      // lanes * K
    int32_t * keys;          // K * tile_keys; words of four int8 where keys are integers
    float *   key_scale;     // blocks * tile_keys
    int8_t *  value_levels;  // tile_keys * V
    float *   value_scale;   // V / 64 * tile_keys
    float *   values;        // tile_keys * V, or tile_keys * 64 where V has levels
};

// A part of the keys as one row sees them: the power, the mass (as a double) and the sum of the values, in floats.
constexpr int64_t part_mass = 2, part_sum = 4;

int64_t part_size(const attention * fa) { return part_sum + fa->value_size; }

int64_t chunks_of(const attention * fa) { return (fa->n_kv + chunk_keys - 1) / chunk_keys; }

// Levels of the tree of all chunks.
int64_t levels_of(const attention * fa) {
    int64_t levels = 1;
    while (((int64_t) 1 << (levels - 1)) < chunks_of(fa)) {
        ++levels;
    }
    return levels;
}

// Lay out the workspace from `base`; its size in bytes.
size_t lay_out(const attention * fa, char * base, workspace * w) {
    const int64_t rows = fa->tile_rows, K = fa->key_size, V = fa->value_size, blocks = K / 32;
    size_t        used = 0;
    const auto    take = [&](auto *& pointer, int64_t count) {
        pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + used);
        used += ((size_t) count * sizeof(*pointer) + alignment - 1) / alignment * alignment;
    };
    take(w->query, rows * K);
    take(w->query_scale, rows * blocks);
    take(w->query_offset, rows * blocks);
    take(w->scores, rows * tile_keys);
    take(w->weights, rows * tile_keys);
    take(w->sum, rows * V);
    take(w->power, rows);
    take(w->mass, rows);
    take(w->spans, rows);
    take(w->kept, rows * tile_keys);
    take(w->joined, levels_of(fa) * rows * part_size(fa));
    take(w->key_rows, lanes * K);
    take(w->keys, K * tile_keys);
    take(w->key_scale, blocks * tile_keys);
    take(w->value_levels, tile_keys * V);
    take(w->value_scale, V / columns * tile_keys);
    take(w->values, tile_keys * V);
    return used;
}

// The rows of one tile: row r is token (first + r) / group of head kv_head * group + (first + r) % group, so that the
// heads that share a key stand together.
struct tile {
    int64_t first, rows, group, kv_head, batch;

    int64_t token(int64_t r) const { return (first + r) / group; }
    int64_t head(int64_t r) const { return kv_head * group + (first + r) % group; }
};

int64_t tiles_per_head(const attention * fa) {
    return (fa->n_q * (fa->heads / fa->kv_heads) + fa->tile_rows - 1) / fa->tile_rows;
}

tile tile_of(const attention * fa, int64_t item) {
    tile          t;
    const int64_t tiles = tiles_per_head(fa);
    t.group             = fa->heads / fa->kv_heads;
    t.first             = item % tiles * fa->tile_rows;
    t.rows              = std::min(fa->tile_rows, fa->n_q * t.group - t.first);
    t.kv_head           = item / tiles % fa->kv_heads;
    t.batch             = item / tiles / fa->kv_heads;
    return t;
}

const char * row_of(const ggml_turbo_rows & rows, int64_t row, int64_t head, int64_t batch) {
    return rows.data + row * rows.row + head * rows.head + batch * rows.batch;
}

const char * mask_of(const attention * fa, const tile & t, int64_t r, int64_t key) {
    return row_of(fa->mask, t.token(r), t.head(r) % fa->mask_heads, t.batch % fa->mask_batches) + key * 2;
}

// How fast the bias of ALiBi grows with the distance: a geometric series over the heads, which for a number of heads that
// is no power of two goes on between the terms of the first.
float slope_of(const attention * fa, int64_t head) {
    if (fa->max_bias <= 0.0f) {
        return 1.0f;
    }
    int64_t power = 1;
    while (2 * power <= fa->heads) {
        power *= 2;
    }
    const float step = fa->max_bias / (float) power;
    return exp2f(head < power ? -step * (float) (head + 1) : -step * 0.5f * (float) (2 * (head - power) + 1));
}

// Whether no row of the tile may see any of n keys.
bool hidden(const attention * fa, const tile & t, int64_t key, int64_t n) {
    if (!fa->mask.data) {
        return false;
    }
    const int64_t step = fa->mask_heads == 1 ? t.group : 1;  // the heads of a token see the same
    for (int64_t r = 0; r < t.rows; r = fa->mask_heads == 1 ? r + step - (t.first + r) % step : r + 1) {
        const char * mask = mask_of(fa, t, r, key);
        for (int64_t i = 0; i < n; ++i) {
            if (load<uint16_t>(mask + 2 * i) != half_minus_infinity) {
                return false;
            }
        }
    }
    return true;
}

// Queries

// A block of a query as int8 with its scale.
void round_block(const float * x, int block, int8_t * levels, float * scale, int32_t * offset) {
    float top = 0.0f;
    for (int i = 0; i < block; ++i) {
        top = std::max(top, std::fabs(x[i]));
    }
    const float inverse = top > 1e-30f ? 127.0f / top : 0.0f;
    int32_t     sum     = 0;
    for (int i = 0; i < block; ++i) {
        const int level = (int) rintf(x[i] * inverse);
        levels[i]       = (int8_t) level;
        sum += level;
    }
    *scale *= top / 127.0f;
    *offset = key_bias ? -128 * sum : 0;
}

void take_queries(const attention * fa, const tile & t, const workspace & w) {
    const float   scale  = fa->softcap != 0.0f ? fa->scale / fa->softcap : fa->scale;
    const int     block  = fa->k_codec.block;
    const int64_t blocks = block ? fa->key_size / block : 0;
    for (int64_t r = 0; r < t.rows; ++r) {
        const float * q = (const float *) row_of(fa->q, t.token(r), t.head(r), t.batch);
        for (int64_t b = 0; b < blocks; ++b) {
            float * const to = w.query_scale + r * blocks + b;
            *to              = scale;
            round_block(q + b * block, block, (int8_t *) w.query + r * fa->key_size + b * block, to,
                        w.query_offset + r * blocks + b);
        }
        for (int64_t i = 0; !block && i < fa->key_size; ++i) {
            w.query[r * fa->key_size + i] = q[i] * scale;
        }
    }
}

// Keys and scores

// A tile of keys, transposed: word i of key j at keys[i * tile_keys + j], where a word is four int8 or one f32.
void decode_keys(const attention * fa, const char * from, int64_t n, const workspace & w) {
    const ggml_turbo_codec & codec  = fa->k_codec;
    const int64_t            words  = codec.block ? fa->key_size / 4 : fa->key_size;
    const int64_t            blocks = codec.block ? fa->key_size / codec.block : 0;
    float                    scale[64];
    for (int64_t j = 0; j < n; ++j) {
        int32_t * row = w.key_rows + j % lanes * words;
        if (codec.block) {
            for (int64_t b = 0; b < blocks; b += 64) {
                const int64_t part = std::min<int64_t>(64, blocks - b);
                const size_t  done = (size_t) b * codec.block;
                codec.levels(from + j * fa->k.row, (int8_t *) row + done, scale, part * codec.block);
                for (int64_t i = 0; i < part; ++i) {
                    w.key_scale[(b + i) * tile_keys + j] = scale[i];
                }
            }
        } else {
            codec.floats(from + j * fa->k.row, (float *) row, fa->key_size);
        }
        if (j % lanes == lanes - 1 || j == n - 1) {
            int32_t * to = w.keys + j / lanes * lanes;
            for (int64_t i = 0; i < words; i += lanes) {
                transpose(w.key_rows + i, words, to + i * tile_keys, tile_keys, codec.block ? key_bias : 0);
            }
        }
    }
}

// Scores of R rows from r on, from keys of integers.
template <int R> void score_levels(const attention * fa, int64_t r, const workspace & w) {
    const int     block  = fa->k_codec.block;
    const int64_t blocks = fa->key_size / block;
    const char *  query  = (const char *) w.query + r * fa->key_size;
    for (int64_t j = 0; j < tile_keys; j += vectors * lanes) {
        floats score[R][vectors] = {};
        for (int64_t b = 0; b < blocks; ++b) {
            ints sum[R][vectors];
            for (int i = 0; i < R; ++i) {
                for (int v = 0; v < vectors; ++v) {
                    sum[i][v] = ints{} + w.query_offset[(r + i) * blocks + b];
                }
            }
            for (int64_t d = b * block; d < (b + 1) * block; d += 4) {
                const int32_t * keys = w.keys + d / 4 * tile_keys + j;
                for (int v = 0; v < vectors; ++v) {
                    const ints k = load<ints>(keys + v * lanes);
                    for (int i = 0; i < R; ++i) {
                        sum[i][v] = dot4(sum[i][v], k, load<int32_t>(query + i * fa->key_size + d));
                    }
                }
            }
            for (int v = 0; v < vectors; ++v) {
                const floats scale = load<floats>(w.key_scale + b * tile_keys + j + v * lanes);
                for (int i = 0; i < R; ++i) {
                    score[i][v] += to_floats(sum[i][v]) * (scale * w.query_scale[(r + i) * blocks + b]);
                }
            }
        }
        for (int i = 0; i < R; ++i) {
            for (int v = 0; v < vectors; ++v) {
                store(w.scores + (r + i) * tile_keys + j + v * lanes, score[i][v]);
            }
        }
    }
}

// The same from keys of f32.
template <int R> void score_floats(const attention * fa, int64_t r, const workspace & w) {
    const float * query = w.query + r * fa->key_size;
    for (int64_t j = 0; j < tile_keys; j += vectors * lanes) {
        floats score[R][vectors] = {};
        for (int64_t d = 0; d < fa->key_size; ++d) {
            const int32_t * keys = w.keys + d * tile_keys + j;
            for (int v = 0; v < vectors; ++v) {
                const floats k = load<floats>(keys + v * lanes);
                for (int i = 0; i < R; ++i) {
                    score[i][v] += k * query[i * fa->key_size + d];
                }
            }
        }
        for (int i = 0; i < R; ++i) {
            for (int v = 0; v < vectors; ++v) {
                store(w.scores + (r + i) * tile_keys + j + v * lanes, score[i][v]);
            }
        }
    }
}

template <int R> void score(const attention * fa, int64_t r, const workspace & w) {
    fa->k_codec.block ? score_levels<R>(fa, r, w) : score_floats<R>(fa, r, w);
}

// Call f<R>(r) for all rows, four at a time.
#define FOR_ROWS(r, rows, f, ...)                        \
    for (int64_t r = 0; r < (rows);) {                   \
        switch (std::min<int64_t>(4, (rows) - r)) {      \
            case 4: f<4>(__VA_ARGS__); r += 4; break;    \
            case 3: f<3>(__VA_ARGS__); r += 3; break;    \
            case 2: f<2>(__VA_ARGS__); r += 2; break;    \
            default: f<1>(__VA_ARGS__); r += 1; break;   \
        }                                                \
    }

// Softmax

// Turn the scores of row r with the keys `from` to `to` of the tile at `key` into exponentials, those of the others into
// zeros, and bring the row's running sums along.
//
// Exponentials are relative to a power of two, so that a larger score than all before rescales exactly; and their mass is
// summed in f64, where the order does not show. So a row's result depends on the keys that it sees and on their order,
// not on the cells between them, the other rows, or the threads.
void soften(const attention * fa, const tile & t, int64_t r, int64_t key, int64_t from, int64_t to, const workspace & w) {
    float *   score = w.scores + r * tile_keys;
    uint16_t  mask[tile_keys];
    bool      masked = false;
    if (fa->mask.data) {
        memset(mask, 0, sizeof(mask));
        memcpy(mask + from, mask_of(fa, t, r, key + from), (to - from) * sizeof(*mask));
        uint16_t any = 0;
        for (int64_t j = 0; j < tile_keys; ++j) {
            any |= mask[j];
        }
        masked = any != 0;
    }
    for (int64_t j = 0; fa->softcap != 0.0f && j < tile_keys; j += lanes) {
        store(score + j, hyperbolic_tangent(load<floats>(score + j)) * fa->softcap);
    }
    std::fill(score, score + from, -INFINITY);
    std::fill(score + to, score + tile_keys, -INFINITY);
    const float slope = masked ? slope_of(fa, t.head(r)) : 0.0f;
    floats      tops  = splat(-INFINITY);
    for (int64_t j = 0; j < tile_keys; j += lanes) {
        floats s = load<floats>(score + j);
        if (masked) {
            s += load_halves(mask + j) * slope;
        }
        tops = larger(tops, s);
        store(score + j, s);
    }
    const float top = largest(tops);
    if (top == -INFINITY) {
        memset(score, 0, tile_keys * sizeof(float));
        return;
    }
    const float power = (float) power_of(top);
    if (power > w.power[r]) {
        const float shrink = w.power[r] == -INFINITY ? 0.0f : power_of_two(w.power[r] - power);
        w.mass[r] *= shrink;
        w.power[r] = power;
        float * sum = w.sum + r * fa->value_size;
        for (int64_t i = 0; i < fa->value_size; i += lanes) {
            store(sum + i, load<floats>(sum + i) * shrink);
        }
    }
    const int32_t unit = (int32_t) w.power[r];
    doubles       mass{};
    for (int64_t j = 0; j < tile_keys; j += lanes) {
        const floats e = exponential(load<floats>(score + j), unit);
        mass += __builtin_convertvector(e, doubles);
        store(score + j, e);
    }
    w.mass[r] += total(mass);
}

// Values

// sum[i][c] += weight[i][j] * value[j][c] for R rows i, n keys j and 64 columns c.
template <int R, typename T>
void accumulate(float * sum, int64_t sum_stride, const float * weight, const T * value, int64_t value_stride, int64_t n) {
    for (int64_t c = 0; c < columns; c += vectors * lanes) {
        floats s[R][vectors];
        for (int i = 0; i < R; ++i) {
            for (int v = 0; v < vectors; ++v) {
                s[i][v] = load<floats>(sum + i * sum_stride + c + v * lanes);
            }
        }
        for (int64_t j = 0; j < n; ++j) {
            for (int v = 0; v < vectors; ++v) {
                const floats x = load_floats(value + j * value_stride + c + v * lanes);
                for (int i = 0; i < R; ++i) {
                    s[i][v] += x * weight[i * tile_keys + j];
                }
            }
        }
        for (int i = 0; i < R; ++i) {
            for (int v = 0; v < vectors; ++v) {
                store(sum + i * sum_stride + c + v * lanes, s[i][v]);
            }
        }
    }
}

template <int R> void accumulate_floats(const attention * fa, int64_t r, int64_t c, const float * weights,
                                        const float * values, int64_t stride, int64_t n, const workspace & w) {
    accumulate<R>(w.sum + r * fa->value_size + c, fa->value_size, weights + r * tile_keys, values, stride, n);
}

template <int R> void accumulate_levels(const attention * fa, int64_t r, int64_t c, int64_t n, const workspace & w) {
    accumulate<R>(w.sum + r * fa->value_size + c, fa->value_size, w.weights + r * tile_keys, w.value_levels + c,
                  fa->value_size, n);
}

void add_values(const attention * fa, const tile & t, const char * from, int64_t n, const workspace & w) {
    const int64_t            size  = fa->value_size;
    const ggml_turbo_codec & codec = fa->v_codec;
    if (codec.block != columns) {
        for (int64_t j = 0; j < n; ++j) {
            codec.floats(from + j * fa->v.row, w.values + j * size, size);
        }
        for (int64_t c = 0; c < size; c += columns) {
            FOR_ROWS(r, t.rows, accumulate_floats, fa, r, c, w.scores, w.values + c, size, n, w)
        }
        return;
    }
    const int64_t blocks = size / columns;
    for (int64_t j = 0; j < n; ++j) {
        codec.levels(from + j * fa->v.row, w.value_levels + j * size, w.value_scale + j * blocks, size);
    }
    // the scale always goes to the weight, in however many rows: (weight * scale) * level rounds in one way
    for (int64_t b = 0; b < blocks; ++b) {
        for (int64_t r = 0; r < t.rows; ++r) {
            for (int64_t j = 0; j < n; ++j) {
                w.weights[r * tile_keys + j] = w.scores[r * tile_keys + j] * w.value_scale[j * blocks + b];
            }
        }
        if (t.rows >= expand_from) {
            for (int64_t j = 0; j < n; ++j) {
                for (int64_t c = 0; c < columns; c += lanes) {
                    store(w.values + j * columns + c, load_floats(w.value_levels + j * size + b * columns + c));
                }
            }
            FOR_ROWS(r, t.rows, accumulate_floats, fa, r, b * columns, w.weights, w.values, columns, n, w)
        } else {
            FOR_ROWS(r, t.rows, accumulate_levels, fa, r, b * columns, n, w)
        }
    }
}

void finish(const attention * fa, const tile & t, int64_t r, const float * sum, double mass) {
    char *      to      = fa->out.data + t.token(r) * fa->out.row + t.head(r) * fa->out.head + t.batch * fa->out.batch;
    const float inverse = mass > 0.0 ? 1.0f / (float) mass : 0.0f;
    for (int64_t i = 0; i < fa->value_size; i += lanes) {
        store(to + i * sizeof(float), load<floats>(sum + i) * inverse);
    }
}

// Parts
//
// Each row counts the keys that it sees. Every so many of them are a chunk, which is summed by itself, and chunks are joined
// in pairs, then pairs of pairs. So neither the number of threads, nor other rows, nor where in the cache the keys lie shows
// in the result. Chunks beyond the last one change nothing.

float * split_part(const attention * fa, char * partials, int64_t item, int64_t split, int64_t r) {
    return (float *) partials + ((item * fa->tile_rows + r) * fa->splits + split) * part_size(fa);
}

// Join a part into the one before it. All rescaling is by powers of two, and so exact.
void join(const attention * fa, float * part, const float * next) {
    const float top = std::max(part[0], next[0]);
    if (next[0] == -INFINITY) {
        return;
    }
    if (part[0] == -INFINITY) {
        memcpy(part, next, part_size(fa) * sizeof(float));
        return;
    }
    const float mine = power_of_two(part[0] - top), other = power_of_two(next[0] - top);
    part[0] = top;
    store(part + part_mass, load<double>(part + part_mass) * mine + load<double>(next + part_mass) * other);
    for (int64_t i = part_sum; i < part_size(fa); i += lanes) {
        store(part + i, load<floats>(part + i) * mine + load<floats>(next + i) * other);
    }
}

// Of `depth` parts that wait, the last one is new, and has the place `place` among its equals: join it with those that it
// completes. How many wait then.
int complete(const attention * fa, float * const * parts, int depth, int64_t place) {
    for (; place & 1; place >>= 1) {
        --depth;
        join(fa, parts[depth - 1], parts[depth]);
    }
    return depth;
}

// Join all that wait; the first one has the whole.
void join_all(const attention * fa, float * const * parts, int depth) {
    for (; depth > 1; --depth) {
        join(fa, parts[depth - 2], parts[depth - 1]);
    }
}

// Chunks for one job: a power of two, so that they are a tree of their own.
int64_t chunks_per_split(int64_t all, int64_t wanted) {
    int64_t chunks = 1;
    while ((all + chunks - 1) / chunks > wanted) {
        chunks *= 2;
    }
    return chunks;
}

// How many of n keys from `key` on a row sees.
int64_t count(const attention * fa, const tile & t, int64_t r, int64_t key, int64_t n) {
    if (!fa->mask.data) {
        return n;
    }
    const char * mask  = mask_of(fa, t, r, key);
    int32_t      found = 0;
    for (int64_t i = 0; i < n; ++i) {
        found += load<uint16_t>(mask + 2 * i) != half_minus_infinity;
    }
    return found;
}

// Where row r has seen `wanted` keys from `key` on; n_kv if it never has.
int64_t place_of(const attention * fa, const tile & t, int64_t r, int64_t key, int64_t wanted) {
    while (key < fa->n_kv && wanted > 0) {
        const int64_t n    = std::min(tile_keys, fa->n_kv - key);
        const int64_t here = count(fa, t, r, key, n);
        if (here < wanted) {
            wanted -= here;
            key += n;
            continue;
        }
        for (; wanted > 0; ++key) {
            wanted -= count(fa, t, r, key, 1);
        }
    }
    return key;
}

void start_chunk(const attention * fa, int64_t r, const workspace & w) {
    memset(w.sum + r * fa->value_size, 0, fa->value_size * sizeof(float));
    w.power[r] = -INFINITY;
    w.mass[r]  = 0.0;
}

// What the job takes of each row, with the first of its chunks.
int64_t start_rows(const attention * fa, const tile & t, int64_t split, const workspace & w) {
    int64_t chunks = 0;  // of a part; all of them where there is one
    if (fa->splits > 1) {
        int64_t most = 0;
        for (int64_t r = 0; r < t.rows; ++r) {
            const bool same = r > 0 && fa->mask_heads <= 1 && t.token(r) == t.token(r - 1);
            most            = same ? most : std::max(most, count(fa, t, r, 0, fa->n_kv));
        }
        chunks = chunks_per_split((most + chunk_keys - 1) / chunk_keys, fa->splits);
    }
    for (int64_t r = 0; r < t.rows; ++r) {
        span & own = w.spans[r];
        own        = { 0, fa->n_kv, split * chunks * chunk_keys, 0, false, 0 };
        if (fa->splits > 1) {
            own.begin = place_of(fa, t, r, 0, own.seen);
            own.end   = place_of(fa, t, r, own.begin, chunks * chunk_keys);
        }
        start_chunk(fa, r, w);
        // a sink is a score that has been met before all others, with a value of zero
        const float sink = fa->sinks && split == 0 ? fa->sinks[t.head(r)] : -INFINITY;
        if (sink != -INFINITY) {
            w.power[r] = (float) power_of(sink);
            w.mass[r]  = exponential(splat(sink), (int32_t) w.power[r])[0];
        }
    }
    return split * chunks;
}

// Count what row r sees of the keys `from` to `to` of a tile, up to the end of its chunk.
void advance(const attention * fa, const tile & t, int64_t r, int64_t key, int64_t from, int64_t to, span * own) {
    const int64_t left = chunk_keys - own->seen % chunk_keys;
    const int64_t here = from < to ? count(fa, t, r, key + from, to - from) : 0;
    own->full          = here >= left;
    own->stop          = here > left ? place_of(fa, t, r, key + from, left) - key : std::max(from, to);
    own->seen += std::min(here, left);
}

// The part of row r that comes next to those that wait.
void keep_part(const attention * fa, int64_t r, int64_t place, const workspace & w) {
    float * parts[64];
    int &   depth = w.spans[r].depth;
    for (int i = 0; i <= depth; ++i) {
        parts[i] = w.joined + (i * fa->tile_rows + r) * part_size(fa);
    }
    float * part = parts[depth];
    part[0]      = w.power[r];
    store(part + part_mass, w.mass[r]);
    memcpy(part + part_sum, w.sum + r * fa->value_size, fa->value_size * sizeof(float));
    depth = complete(fa, parts, depth + 1, place);
}

void end_full_chunks(const attention * fa, const tile & t, int64_t first, const workspace & w) {
    for (int64_t r = 0; r < t.rows; ++r) {
        if (w.spans[r].full) {
            keep_part(fa, r, w.spans[r].seen / chunk_keys - 1 - first, w);
            start_chunk(fa, r, w);
        }
    }
}

// Sum up the keys of a tile of them.
void attend(const attention * fa, const tile & t, int64_t key, int64_t first, const workspace & w) {
    const int64_t n        = std::min(tile_keys, fa->n_kv - key);
    const int64_t kv_batch = t.batch / (fa->batches / fa->kv_batches);
    const char *  values   = row_of(fa->v, key, t.kv_head, kv_batch);
    decode_keys(fa, row_of(fa->k, key, t.kv_head, kv_batch), n, w);
    FOR_ROWS(r, t.rows, score, fa, r, w)
    const auto end = [&](const span & own) { return std::max<int64_t>(0, std::min(n, own.end - key)); };
    bool more = false;
    for (int64_t r = 0; r < t.rows; ++r) {
        span &        own  = w.spans[r];
        const int64_t from = std::min(n, std::max<int64_t>(0, own.begin - key)), to = std::max(from, end(own));
        advance(fa, t, r, key, from, to, &own);
        if (own.stop < to) {
            memcpy(w.kept + r * tile_keys, w.scores + r * tile_keys, tile_keys * sizeof(float));
            more = true;
        }
        soften(fa, t, r, key, from, own.stop, w);
    }
    add_values(fa, t, values, n, w);
    end_full_chunks(fa, t, first, w);
    if (!more) {
        return;
    }
    // what is left of the tile for rows whose chunk has ended in it
    for (int64_t r = 0; r < t.rows; ++r) {
        span &        own  = w.spans[r];
        const int64_t from = own.stop, to = end(own);
        own.full = false;
        if (from < to) {
            memcpy(w.scores + r * tile_keys, w.kept + r * tile_keys, tile_keys * sizeof(float));
            advance(fa, t, r, key, from, to, &own);
            soften(fa, t, r, key, from, to, w);
        } else {
            memset(w.scores + r * tile_keys, 0, tile_keys * sizeof(float));
        }
    }
    add_values(fa, t, values, n, w);
}

}  // namespace

void ggml_turbo_attention_plan(ggml_turbo_attention * fa, int threads) {
    const int64_t group = fa->heads / fa->kv_heads;
    fa->tile_rows       = std::min(tile_rows, fa->n_q * group);
    fa->items           = tiles_per_head(fa) * fa->kv_heads * fa->batches;
    // with few items, the keys are divided, so that the threads end at about the same time
    const int64_t wanted = threads > 1 ? (4 * (int64_t) threads + fa->items - 1) / fa->items : 1;
    const int64_t chunks = chunks_per_split(chunks_of(fa), wanted);
    fa->splits           = (chunks_of(fa) + chunks - 1) / chunks;
    workspace w;
    fa->scratch_bytes = lay_out(fa, nullptr, &w);
    fa->partial_bytes =
        fa->splits > 1 ? (size_t) (fa->items * fa->tile_rows * fa->splits * part_size(fa)) * sizeof(float) : 0;
}

void ggml_turbo_attention_job(const ggml_turbo_attention * fa, int64_t job, char * scratch, char * partials) {
    const int64_t item = job / fa->splits, split = job % fa->splits;
    const tile    t = tile_of(fa, item);
    workspace     w;
    lay_out(fa, scratch, &w);
    take_queries(fa, t, w);

    const int64_t first = start_rows(fa, t, split, w);
    int64_t       begin = fa->n_kv, end = 0;
    for (int64_t r = 0; r < t.rows; ++r) {
        begin = std::min(begin, w.spans[r].begin);
        end   = std::max(end, w.spans[r].end);
    }
    for (int64_t key = begin / tile_keys * tile_keys; key < end; key += tile_keys) {
        if (!hidden(fa, t, key, std::min(tile_keys, fa->n_kv - key))) {
            attend(fa, t, key, first, w);
        }
    }

    for (int64_t r = 0; r < t.rows; ++r) {
        float *       parts[64];
        const int64_t seen = w.spans[r].seen;
        if (fa->splits > 1 || w.spans[r].depth > 0) {
            if (w.spans[r].depth == 0 || seen % chunk_keys != 0) {
                keep_part(fa, r, seen / chunk_keys - first, w);
            }
            for (int i = 0; i < w.spans[r].depth; ++i) {
                parts[i] = w.joined + (i * fa->tile_rows + r) * part_size(fa);
            }
            join_all(fa, parts, w.spans[r].depth);
        }
        if (fa->splits > 1) {
            memcpy(split_part(fa, partials, item, split, r), parts[0], part_size(fa) * sizeof(float));
        } else if (w.spans[r].depth > 0) {
            finish(fa, t, r, parts[0] + part_sum, load<double>(parts[0] + part_mass));
        } else {
            finish(fa, t, r, w.sum + r * fa->value_size, w.mass[r]);
        }
    }
}

void ggml_turbo_attention_join(const ggml_turbo_attention * fa, int64_t row, char * partials) {
    const int64_t item = row / fa->tile_rows, r = row % fa->tile_rows;
    const tile    t = tile_of(fa, item);
    if (r >= t.rows) {
        return;
    }
    float * parts[64];
    int     depth = 0;
    for (int64_t split = 0; split < fa->splits; ++split) {
        parts[depth++] = split_part(fa, partials, item, split, r);
        depth          = complete(fa, parts, depth, split);
    }
    join_all(fa, parts, depth);
    finish(fa, t, r, parts[0] + part_sum, load<double>(parts[0] + part_mass));
}
