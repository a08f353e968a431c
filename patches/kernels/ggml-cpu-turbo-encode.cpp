// The encoder of the TurboQuant cache types with vector instructions: the states of the trellis are the lanes, beside
// them the trials of a block or several blocks. The result is that of the plain C in ggml-turbo-encode.h, bit for bit.

#include "ggml-cpu-turbo.h"
#include "ggml-cpu-turbo-encode-simd.h"

#if defined(TURBO_X86) || defined(TURBO_NEON)

namespace {

struct Tables : turbo_tables {
    turbo_codebook book;
    constexpr Tables(const turbo_codebook & from) : turbo_tables(), book(from) { turbo_fill(&book, this); }
};

// A block on its way, and where its path begins and ends.
struct Block {
    int16_t  v[QK_TURBO], y[QK_TURBO];
    uint32_t error;
    float    peak;
    int      book, start;
    uint64_t path;
};

// turbo_judge
int16_t judge(const Tables & tables, const int16_t * v) {
    constexpr int registers = TURBO_TRIALS / Unit::size;
    Unit::type    path[registers][2], worst[registers];
    uint32_t      total[TURBO_TRIALS] = {};
    for (int r = 0; r < registers; ++r) {
        path[r][0] = path[r][1] = worst[r] = Unit::zero();
    }
    uint8_t row[QK_TURBO];
    for (int j = 0; j < QK_TURBO; ++j) {
        row[j] = (uint8_t) (v[j] >> 8);
    }
    for (int span = 0; span < QK_TURBO; span += TURBO_SPAN) {
        for (int t = span; t < span + TURBO_SPAN; t += 8) {
            for (int i = 0; i < 8; ++i) {
                const Unit::type error = Unit::load_in_all(tables.coarse[row[turbo_position(t) + 8 * i]][0]);
                for (int r = 0; r < registers; ++r) {
                    const auto reach = [&](int half, Unit::type lower, Unit::type upper) {
                        return Unit::least(
                            Unit::add(lower, Unit::shuffle(error, Unit::load(patterns.coarse[0][half][r * Unit::size]))),
                            Unit::add(upper, Unit::shuffle(error, Unit::load(patterns.coarse[1][half][r * Unit::size]))));
                    };
                    const Unit::type low  = reach(0, Unit::low_twice(path[r][0]), Unit::low_twice(path[r][1]));
                    path[r][1]            = reach(1, Unit::high_twice(path[r][0]), Unit::high_twice(path[r][1]));
                    path[r][0]            = low;
                }
            }
        }
        uint8_t least[TURBO_TRIALS][16];
        for (int r = 0; r < registers; ++r) {
            const Unit::type least_here = Unit::least_in_all(Unit::least(path[r][0], path[r][1]));
            path[r][0]                  = Unit::subtract(path[r][0], least_here);
            path[r][1]                  = Unit::subtract(path[r][1], least_here);
            worst[r]                    = Unit::most(worst[r], least_here);
            Unit::store(least[r * Unit::size], least_here);
        }
        for (int trial = 0; trial < TURBO_TRIALS; ++trial) {
            total[trial] += least[trial][0];
        }
    }
    int best = 0;
    for (int trial = 1; trial < TURBO_TRIALS; ++trial) {
        best = turbo_less(total[trial], tables.book.trial[trial], total[best], tables.book.trial[best]) ? trial : best;
    }
    uint8_t high[TURBO_TRIALS][16];
    for (int r = 0; r < registers; ++r) {
        Unit::store(high[r * Unit::size], worst[r]);
    }
    return high[best][0] < TURBO_LIMIT ? tables.book.trial[best] : (int16_t) 0;
}

// Blocks that take their turns together, since a step waits for the one before it.
constexpr int ABREAST = 4;

// turbo_turn for each of n blocks with the same codebook, and turbo_trace from the best end.
void turn(const Tables & tables, Block * const * blocks, int n) {
    constexpr int registers = ABREAST / Unit::size;
    for (int first = 0; first < n; first += ABREAST) {
        Block *    group[ABREAST];
        Unit::type metric[registers][4];
        uint32_t   came[QK_TURBO][ABREAST];
        for (int i = 0; i < ABREAST; ++i) {
            group[i] = blocks[first + i < n ? first + i : first];
        }
        for (int r = 0; r < registers; ++r) {
            for (int quarter = 0; quarter < 4; ++quarter) {
                metric[r][quarter] = 8 * quarter < TURBO_STARTS ? Unit::zero() : Unit::far_16();
            }
        }
        for (int t = 0; t < QK_TURBO; t += 8) {
            for (int u = 0; u < 8; ++u) {
                const int at = turbo_position(t) + 8 * u;
                for (int r = 0; r < registers; ++r) {
                    const uint16_t * error[Unit::size];
                    for (int i = 0; i < Unit::size; ++i) {
                        error[i] = (tables.error + TURBO_REACH)[group[r * Unit::size + i]->y[at]];
                    }
                    const Unit::type all = Unit::errors(error);
                    Unit::type       a[4], b[4];
                    for (int half = 0; half < 2; ++half) {
                        const Unit::type near = Unit::shuffle(all, Unit::load(patterns.exact[0][half][0][0]));
                        const Unit::type far  = Unit::shuffle(all, Unit::load(patterns.exact[1][half][0][0]));
                        a[2 * half]           = Unit::add_16(Unit::low_twice_16(metric[r][half]), near);
                        a[2 * half + 1]       = Unit::add_16(Unit::high_twice_16(metric[r][half]), near);
                        b[2 * half]           = Unit::add_16(Unit::low_twice_16(metric[r][half + 2]), far);
                        b[2 * half + 1]       = Unit::add_16(Unit::high_twice_16(metric[r][half + 2]), far);
                    }
                    for (int quarter = 0; quarter < 4; ++quarter) {
                        metric[r][quarter] = Unit::least_16(a[quarter], b[quarter]);
                    }
                    Unit::store_more(&came[t + u][r * Unit::size], a, b);
                }
            }
        }
        int      state[ABREAST];
        uint64_t path[ABREAST] = {};
        for (int r = 0; r < registers; ++r) {
            uint16_t end[4][Unit::size][8];
            for (int quarter = 0; quarter < 4; ++quarter) {
                Unit::store((uint8_t *) end[quarter][0], metric[r][quarter]);
            }
            for (int i = 0; i < Unit::size; ++i) {
                uint32_t best = UINT32_MAX;  // turbo_best_state
                for (int quarter = 0; quarter < 4; ++quarter) {
                    for (int lane = 0; lane < 8; ++lane) {
                        const uint32_t s = 8 * quarter + lane, key = (uint32_t) end[quarter][i][lane] << TURBO_PAST | s;
                        best             = key < best ? key : best;
                    }
                }
                state[r * Unit::size + i]        = (int) (best % TURBO_STATES);
                group[r * Unit::size + i]->error = best >> TURBO_PAST;
            }
        }
        for (int t = QK_TURBO - 1; t >= 0; --t) {
            for (int i = 0; i < ABREAST; ++i) {
                path[i]  = path[i] << 1 | (uint64_t) (state[i] & 1);
                state[i] = state[i] >> 1 | (int) (came[t][i] >> state[i] & 1) << (TURBO_PAST - 1);
            }
        }
        for (int i = 0; i < ABREAST; ++i) {
            group[i]->path  = path[i];
            group[i]->start = state[i];
        }
    }
}

// judge_again in ggml-turbo.c
int16_t judge_again(const Tables * tables, Block & block) {
    uint32_t least = 0;
    int16_t  best  = 0;
    for (int book = 0; book < 2; ++book, turbo_negate(block.v)) {
        Block   wide[TURBO_WIDE_TRIALS];
        Block * list[TURBO_WIDE_TRIALS];
        for (int trial = 0; trial < TURBO_WIDE_TRIALS; ++trial) {
            list[trial] = &wide[trial];
            turbo_scale(block.v, tables[book].book.wide[trial], wide[trial].y);
        }
        turn(tables[book], list, TURBO_WIDE_TRIALS);
        for (int trial = 0; trial < TURBO_WIDE_TRIALS; ++trial) {
            const int16_t peak = tables[book].book.wide[trial];
            if (best == 0 || turbo_less(wide[trial].error, peak, least, best)) {
                least      = wide[trial].error;
                best       = peak;
                block.book = book;
            }
        }
    }
    if (block.book == 1) {
        turbo_negate(block.v);
    }
    return best;
}

// n blocks of `count` raw bits for each value.
template <const Tables * tables, int count> void quantize(const float * x, uint8_t * to, int64_t n) {
    constexpr int bytes = 10 + 8 * count;
    constexpr int CHUNK = 16;
    Block         blocks[CHUNK];
    Block *       list[2][CHUNK];
    for (; n > 0; n -= CHUNK, x += CHUNK * QK_TURBO, to += CHUNK * bytes) {
        const int here      = n < CHUNK ? (int) n : CHUNK;
        int       listed[2] = {};
        for (int i = 0; i < here; ++i) {
            Block & block = blocks[i];
            block.peak    = turbo_prepare(&tables->book, x + QK_TURBO * i, block.v);
            if (block.peak != 0.0f) {
                block.book   = 0;
                int16_t best = turbo_unusual(block.v) ? (int16_t) 0 : judge(tables[0], block.v);
                if (best == 0) {
                    best = judge_again(tables, block);
                }
                turbo_scale(block.v, best, block.y);
                list[block.book][listed[block.book]++] = &block;
            }
        }
        turn(tables[0], list[0], listed[0]);
        turn(tables[1], list[1], listed[1]);
        for (int i = 0; i < here; ++i) {
            const Block & block = blocks[i];
            uint8_t       high[QK_TURBO];
            uint64_t      path   = block.path;
            uint16_t      radius = 0;
            if (block.peak != 0.0f) {
                radius = turbo_finish(&tables[block.book].book, block.peak, block.v, block.y, path,
                                      turbo_past_of(block.start), high);
                radius |= (uint16_t) (radius != 0 && block.book == 1) << 15;
            }
            if (radius == 0) {
                path = 0;
                memset(high, 0, sizeof(high));
            }
            turbo_store(radius, path, high, count, to + i * bytes);
        }
    }
}

#    define TABLES(ID, id, RAW)                                            \
        constexpr turbo_codebook id##_books[2] = TURBO_CODEBOOKS(ID, RAW); \
        constexpr Tables         id##_tables[2] = { id##_books[0], id##_books[1] };
TURBO_TYPES(TABLES)

}  // namespace

#    define QUANTIZER(ID, id, RAW)                                                \
        void ggml_cpu_##id##_quantize_row(const float * x, void * y, int64_t k) { \
            quantize<id##_tables, RAW>(x, (uint8_t *) y, k / QK_TURBO);           \
        }
TURBO_TYPES(QUANTIZER)

#else

#    define QUANTIZER(ID, id, RAW)                                                \
        void ggml_cpu_##id##_quantize_row(const float * x, void * y, int64_t k) { \
            ggml_##id##_quantize_row(x, y, k);                                    \
        }
TURBO_TYPES(QUANTIZER)

#endif
