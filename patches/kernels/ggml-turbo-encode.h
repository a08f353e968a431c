// The encoder of the TurboQuant cache types in plain C: what every faster one must give, bit for bit. Apart from a few
// divisions and products at either end it works in integers, so that is no matter of compilers. It is C++17 as well.
//
// 1. Judge: a few trial radii go side by side through the trellis, in 8-bit metrics of values rounded to 8 bits. That is
//    enough to tell which radius suits the block. A block that is far from Gaussian, by its peak or by errors too large for
//    8 bits, is judged with both codebooks at other radii, in 16 bits.
// 2. Turn: at the best radius the best path of all is searched in 16 bits. It may begin in any of sixteen states, for the
//    radius has room to say in which.
// 3. A level is the nearest one of the subset that the path names, and the radius is refitted by least squares, then
//    moved to the nearest one that has the first state in its lowest bits.
// With the second codebook the block is negated first, and the radius negative.
#pragma once

#include "ggml-turbo-codec.h"

#ifdef __cplusplus
#    define TURBO_CONSTEXPR constexpr
#else
#    define TURBO_CONSTEXPR
#endif

// Radii that are judged in 8 bits, and those for the rest.
#define TURBO_TRIALS 4
#define TURBO_WIDE_TRIALS 8
// A trial scales the block so that its largest magnitude stands at so many units: at most this.
#define TURBO_REACH 320
// 8-bit metrics are brought back towards zero after so many values. The least of them must be below the limit by then;
// else it may have been cut off.
#define TURBO_SPAN 16
#define TURBO_LIMIT 128
// 16-bit metrics saturate here.
#define TURBO_METRIC_MAX 0x7fff
// Sums of squares, of a block whose peak is 2^12 - 1, above and below which it is judged with both codebooks: a peak below
// 1.8 times the root mean square (two of ten thousand Gaussian blocks), or above four times (fifteen).
#define TURBO_FLAT (5u << 26)
#define TURBO_PEAKED (1u << 26)

// As large as the longest codebook
#define TURBO_LEVELS_OF(ID, id, RAW) int8_t id[4 << (RAW)];
typedef union {
    TURBO_TYPES(TURBO_LEVELS_OF)
} turbo_longest;

// A codebook, and how the encoder measures with it. A level is 1 or 2 units wide; squared errors are counted in 4
// square units, and in 8-bit metrics in 4 << shift.
typedef struct {
    int8_t  level[sizeof(turbo_longest)];
    int     count;
    int     unit;
    int     shift;
    int16_t trial[TURBO_TRIALS];
    int16_t wide[TURBO_WIDE_TRIALS];
} turbo_codebook;

// Both codebooks of a type; the second is not judged in 8 bits.
#define TURBO_CODEBOOKS(ID, RAW)                                                            \
    {                                                                                       \
        { ID##_LEVELS, 4 << (RAW), ID##_UNIT, ID##_SHIFT, { ID##_TRIALS }, { ID##_WIDE } }, \
        { ID##_LEVELS2, 4 << (RAW), ID##_UNIT, 0, { 0 }, { ID##_WIDE2 } },                  \
    }

// Squared errors to the nearest level of each subset.
typedef struct {
    // of a value at y units: row TURBO_REACH + y
    uint16_t error[2 * TURBO_REACH + 1][4];
    // in 8 bits, at every trial, of a value that has 16 bits by the upper 8 of them
    uint8_t coarse[256][TURBO_TRIALS][4];
} turbo_tables;

TURBO_CONSTEXPR static inline uint16_t turbo_error(const turbo_codebook * book, int subset, int y) {
    int best = 1 << 16;
    for (int k = subset; k < book->count; k += 4) {
        const int distance = y - book->level[k] * book->unit;
        const int error    = (distance * distance + 2) >> 2;
        best               = error < best ? error : best;
    }
    return (uint16_t) best;
}

TURBO_CONSTEXPR static inline void turbo_fill(const turbo_codebook * book, turbo_tables * tables) {
    for (int y = -TURBO_REACH; y <= TURBO_REACH; ++y) {
        for (int subset = 0; subset < 4; ++subset) {
            tables->error[TURBO_REACH + y][subset] = turbo_error(book, subset, y);
        }
    }
    for (int trial = 0; trial < TURBO_TRIALS; ++trial) {
        for (int high = -128; high < 128; ++high) {
            // in the middle of the values with that upper byte
            const int y = ((2 * high + 1) * book->trial[trial] + 128) >> 8;
            for (int subset = 0; subset < 4; ++subset) {
                const int error = (tables->error[TURBO_REACH + y][subset] + (1 << book->shift >> 1)) >> book->shift;
                tables->coarse[high & 255][trial][subset] = (uint8_t) (error < 255 ? error : 255);
            }
        }
    }
}

// The values of a block as integers such that 32767 is the largest magnitude, which it returns; 0 for a block too small
// for FP16. NaN counts as zero, and what lies beyond the first codebook's largest radius is cut off.
TURBO_INLINE float turbo_prepare(const turbo_codebook * book, const float * x, int16_t * v) {
    const float limit = TURBO_HALF_MAX / TURBO_UNIT * (float) book->level[book->count - 1];
    float       a[QK_TURBO], peak;
    int32_t     bits[QK_TURBO], top = 0;  // magnitudes are in the order of their bits
    memcpy(bits, x, sizeof(bits));
    for (int j = 0; j < QK_TURBO; ++j) {
        bits[j]            = (bits[j] & 0x7fffffff) > 0x7f800000 ? 0 : bits[j];
        const int32_t size = bits[j] & 0x7fffffff;
        top                = size > top ? size : top;
    }
    memcpy(a, bits, sizeof(a));
    memcpy(&peak, &top, sizeof(top));
    peak = peak > limit ? limit : peak;
    if (peak < TURBO_TINY) {
        return 0.0f;
    }
    const float scale = 32767.0f / peak;
    for (int j = 0; j < QK_TURBO; ++j) {
        const float value = a[j] > limit ? limit : a[j] < -limit ? -limit : a[j];
        v[j]              = (int16_t) (int32_t) (value * scale);
    }
    return peak;
}

// Whether the peak of a block is so low or so high that the first codebook may not suit it.
TURBO_INLINE bool turbo_unusual(const int16_t * v) {
    uint32_t sum = 0;
    for (int j = 0; j < QK_TURBO; ++j) {
        const int32_t size = v[j] >> 3;
        sum += (uint32_t) (size * size);
    }
    return sum > TURBO_FLAT || sum < TURBO_PEAKED;
}

TURBO_INLINE void turbo_negate(int16_t * v) {
    for (int j = 0; j < QK_TURBO; ++j) {
        v[j] = (int16_t) -v[j];
    }
}

// Scale v so that 32767 becomes peak, rounding to nearest.
TURBO_INLINE void turbo_scale(const int16_t * v, int16_t peak, int16_t * y) {
    for (int j = 0; j < QK_TURBO; ++j) {
        y[j] = (int16_t) ((((int32_t) v[j] * peak >> 14) + 1) >> 1);
    }
}

// Whether error a at peak pa is less than error b at peak pb, both in proportion to the block.
TURBO_INLINE bool turbo_less(uint32_t a, int pa, uint32_t b, int pb) {
    return (uint64_t) a * (uint32_t) (pb * pb) < (uint64_t) b * (uint32_t) (pa * pa);
}

// The first pass: the peak of the best trial; 0 for a block that needs more than 8 bits.
TURBO_INLINE int16_t turbo_judge(const turbo_codebook * book, const turbo_tables * tables, const int16_t * v) {
    uint8_t  path[TURBO_TRIALS][TURBO_STATES] = { { 0 } };
    uint32_t total[TURBO_TRIALS] = { 0 }, worst[TURBO_TRIALS] = { 0 };
    for (int t = 0; t < QK_TURBO; ++t) {
        for (int trial = 0; trial < TURBO_TRIALS; ++trial) {
            const uint8_t * error = tables->coarse[v[turbo_position(t)] >> 8 & 255][trial];
            uint8_t         next[TURBO_STATES], least = 255;
            for (int state = 0; state < TURBO_STATES; ++state) {
                const int before = state >> 1, subset = turbo_subset(before, state & 1);
                const int a    = path[trial][before] + error[subset];
                const int b    = path[trial][before + TURBO_STATES / 2] + error[subset ^ 2];
                const int best = a < b ? a : b;
                next[state]    = (uint8_t) (best < 255 ? best : 255);
                least          = next[state] < least ? next[state] : least;
            }
            if (t % TURBO_SPAN == TURBO_SPAN - 1) {
                total[trial] += least;
                worst[trial] = least > worst[trial] ? least : worst[trial];
            } else {
                least = 0;
            }
            for (int state = 0; state < TURBO_STATES; ++state) {
                path[trial][state] = (uint8_t) (next[state] - least);
            }
        }
    }
    int best = 0;
    for (int trial = 1; trial < TURBO_TRIALS; ++trial) {
        best = turbo_less(total[trial], book->trial[trial], total[best], book->trial[best]) ? trial : best;
    }
    return worst[best] < TURBO_LIMIT ? book->trial[best] : 0;
}

// The way through the trellis: metrics of the states at the end. Bit `state` of came[t]: the better way into the state at
// value t is from the upper half of the states.
TURBO_INLINE void turbo_turn(const turbo_tables * tables, const int16_t * y, uint16_t * metric, uint32_t * came) {
    for (int state = 0; state < TURBO_STATES; ++state) {
        metric[state] = state < TURBO_STARTS ? 0 : TURBO_METRIC_MAX;
    }
    for (int t = 0; t < QK_TURBO; ++t) {
        const uint16_t * error = tables->error[TURBO_REACH + y[turbo_position(t)]];
        uint16_t         next[TURBO_STATES];
        came[t] = 0;
        for (int state = 0; state < TURBO_STATES; ++state) {
            const int before = state >> 1, subset = turbo_subset(before, state & 1);
            int       a = metric[before] + error[subset];
            int       b = metric[before + TURBO_STATES / 2] + error[subset ^ 2];
            a           = a < TURBO_METRIC_MAX ? a : TURBO_METRIC_MAX;
            b           = b < TURBO_METRIC_MAX ? b : TURBO_METRIC_MAX;
            next[state] = (uint16_t) (b < a ? b : a);
            came[t] |= (uint32_t) (b < a) << state;
        }
        memcpy(metric, next, sizeof(next));
    }
}

// The state with the least metric, the first of several.
TURBO_INLINE int turbo_best_state(const uint16_t * metric) {
    int best = 0;
    for (int state = 1; state < TURBO_STATES; ++state) {
        best = metric[state] < metric[best] ? state : best;
    }
    return best;
}

// The path that ends in a state; *start is where it began.
TURBO_INLINE uint64_t turbo_trace(const uint32_t * came, int state, int * start) {
    uint64_t path = 0;
    for (int t = QK_TURBO - 1; t >= 0; --t) {
        path  = path << 1 | (uint64_t) (state & 1);
        state = state >> 1 | (int) (came[t] >> state & 1) << (TURBO_PAST - 1);
    }
    *start = state;
    return path;
}

// The path bits that a state stands for as turbo_past gives them: in the other order.
TURBO_INLINE uint16_t turbo_past_of(int state) {
    int past = 0;
    for (int bit = 0; bit < TURBO_PAST; ++bit) {
        past |= (state >> bit & 1) << (TURBO_PAST - 1 - bit);
    }
    return (uint16_t) past;
}

// a where the mask is zero, b where it is ones.
TURBO_INLINE int16_t turbo_select(int16_t a, int16_t b, int16_t mask) {
    return (int16_t) (a ^ ((a ^ b) & mask));
}

// The level of the subset with that lower and upper bit (as masks) among four neighbours.
TURBO_INLINE int16_t turbo_of_subset(const int8_t * four, int16_t low, int16_t up) {
    return turbo_select(turbo_select(four[0], four[1], low), turbo_select(four[2], four[3], low), up);
}

// Where v is nearest to the levels of the subset that the path names, after scaling to y: the index above its two lower
// bits goes to high, the radius' magnitude is returned. A radius of zero says that the block is zero.
TURBO_INLINE uint16_t turbo_finish(const turbo_codebook * book, float peak, const int16_t * v, const int16_t * y,
                                   uint64_t path, uint16_t past, uint8_t * high) {
    const uint64_t bit0 = turbo_bit0(path, past), bit1 = turbo_bit1(path, past);
    uint8_t        byte[2][QK_TURBO];
    int16_t        low[QK_TURBO], up[QK_TURBO], level[QK_TURBO], count[QK_TURBO];
    for (int group = 0; group < 8; ++group) {
        turbo_store_plane(byte[0] + 8 * group, bit0 >> group & 0x0101010101010101u);
        turbo_store_plane(byte[1] + 8 * group, bit1 >> group & 0x0101010101010101u);
    }
    for (int j = 0; j < QK_TURBO; ++j) {
        low[j]   = (int16_t) -byte[0][j];
        up[j]    = (int16_t) -byte[1][j];
        level[j] = turbo_of_subset(book->level, low[j], up[j]);
        count[j] = 0;
    }
    const int half = 2 - book->unit;
    for (int k = 4; k < book->count; k += 4) {
        for (int j = 0; j < QK_TURBO; ++j) {
            const int16_t next     = turbo_of_subset(book->level + k, low[j], up[j]);
            const int16_t both     = (int16_t) (level[j] + next);
            const int16_t midpoint = (int16_t) (both >> half);
            const int16_t beyond   = (int16_t) -(y[j] > midpoint);
            level[j]               = turbo_select(level[j], next, beyond);
            count[j]               = (int16_t) (count[j] - beyond);
        }
    }
    int32_t dot = 0, energy = 0;
    for (int j = 0; j < QK_TURBO; ++j) {
        high[j] = (uint8_t) count[j];
        dot += v[j] * level[j];
        energy += level[j] * level[j];
    }
    if (dot <= 0) {
        return 0;
    }
    // dot < 64 * 2^15 * 2^7
    const float radius = (float) dot / (float) energy * (peak / 32767.0f) * TURBO_UNIT;
    const int   bits   = turbo_float_to_half(radius < TURBO_HALF_MAX ? radius : TURBO_HALF_MAX);
    const int   start  = past >> 1;
    const int   near   = ((bits - start + TURBO_STARTS / 2) & -TURBO_STARTS) + start;
    return (uint16_t) (near < 0 ? start : near < 0x7c00 ? near : near - TURBO_STARTS);
}

// A bit of every byte as a plane.
TURBO_INLINE void turbo_store_bit(const uint8_t * high, int bit, uint8_t * plane) {
    uint64_t word = 0;
    for (int group = 0; group < 8; ++group) {
        word |= (turbo_load_plane(high + 8 * group) >> bit & 0x0101010101010101u) << group;
    }
    turbo_store_plane(plane, word);
}

// Two bits of every byte, from `bit` up, as pairs.
TURBO_INLINE void turbo_store_pairs(const uint8_t * high, int bit, uint8_t * pairs) {
    for (int i = 0; i < QK_TURBO / 4; ++i) {
        pairs[i] = (uint8_t) ((high[i] >> bit & 3) | (high[16 + i] >> bit & 3) << 2 | (high[32 + i] >> bit & 3) << 4 |
                              (high[48 + i] >> bit & 3) << 6);
    }
}

// A block of a type with `count` raw bits, which `high` holds.
TURBO_INLINE void turbo_store(uint16_t radius, uint64_t path, const uint8_t * high, int count, uint8_t * block) {
    uint8_t * raw = block + sizeof(radius) + QK_TURBO / 8;
    memcpy(block, &radius, sizeof(radius));
    turbo_store_plane(block + sizeof(radius), path);
    if (count % 2) {
        turbo_store_bit(high, count - 1, raw);
        raw += QK_TURBO / 8;
    }
    for (int bit = 0; bit + 1 < count; bit += 2, raw += QK_TURBO / 4) {
        turbo_store_pairs(high, bit, raw);
    }
}
