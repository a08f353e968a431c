// The encoder of the TurboQuant cache types with vector instructions: the states of the trellis are the lanes. The
// blocks are those of the plain C in ggml-turbo-encode.h, bit for bit.

#include "ggml-cpu-turbo.h"
#include "ggml-cpu-turbo-encode-simd.h"

#if defined(TURBO_X86) || defined(TURBO_NEON)

namespace {

struct Tables : turbo_tables {
    turbo_codebook book;
    constexpr Tables(const turbo_codebook & from) : turbo_tables(), book(from) { turbo_fill(&book, this); }
};

constexpr turbo_codebook book4 = TURBO4_CODEBOOK, book3 = TURBO3_CODEBOOK, book2 = TURBO2_CODEBOOK;
constexpr Tables         tables4(book4), tables3(book3), tables2(book2);

// A block on its way: what it is now, and the turn that it takes next. States go by their lanes.
struct Block {
    int16_t  v[QK_TURBO], y[QK_TURBO];
    uint16_t metric[TURBO_STATES];
    float    peak;
    int      end, start;
    uint64_t path;
};

// turbo_best_state
int best_lane(const uint16_t * metric) {
    uint32_t best = UINT32_MAX;
    for (int lane = 0; lane < TURBO_STATES; ++lane) {
        const uint32_t key = (uint32_t) metric[lane] << 4 | (uint32_t) reverse(lane);
        best               = key < best ? key : best;
    }
    return reverse(best & 15);
}

// turbo_judge
int16_t judge(const Tables & tables, const int16_t * v, uint16_t * metric) {
    constexpr int   registers = TURBO_TRIALS / Unit::size, width = 16 * Unit::size;
    const uint8_t * lower = patterns.coarse[0][0];
    const uint8_t * upper = patterns.coarse[1][0];
    Unit::type      path[registers], worst[registers];
    uint32_t        total[TURBO_TRIALS] = {};
    for (int r = 0; r < registers; ++r) {
        path[r] = worst[r] = Unit::zero();
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
                    const Unit::type a = Unit::shuffle(error, Unit::load(lower + width * r));
                    const Unit::type b = Unit::shuffle(error, Unit::load(upper + width * r));
                    path[r] =
                        Unit::least(Unit::add(Unit::low_twice(path[r]), a), Unit::add(Unit::high_twice(path[r]), b));
                }
            }
        }
        uint8_t least[TURBO_TRIALS][TURBO_STATES];
        for (int r = 0; r < registers; ++r) {
            const Unit::type least_here = Unit::least_in_all(path[r]);
            path[r]                     = Unit::subtract(path[r], least_here);
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
    uint8_t end[TURBO_TRIALS][TURBO_STATES], high[TURBO_TRIALS][TURBO_STATES];
    for (int r = 0; r < registers; ++r) {
        Unit::store(end[r * Unit::size], path[r]);
        Unit::store(high[r * Unit::size], worst[r]);
    }
    for (int lane = 0; lane < TURBO_STATES; ++lane) {
        metric[lane] = (uint16_t) (end[best][reverse(lane)] << tables.book.shift);
    }
    return high[best][0] < TURBO_LIMIT ? tables.book.trial[best] : (int16_t) 0;
}

// Blocks that take their turns together, since a step waits for the one before it.
constexpr int ABREAST = 4;

// turbo_turn for each of n blocks, and turbo_trace from the state in which it should end: a given one, or the best.
void turn(const Tables & tables, Block * const * blocks, int n, bool closed) {
    for (int first = 0; first < n; first += ABREAST) {
        Block * group[ABREAST];
        States  states[ABREAST];
        Came    came[QK_TURBO][ABREAST];
        for (int i = 0; i < ABREAST; ++i) {
            group[i]  = blocks[first + i < n ? first + i : first];
            states[i] = load_states(group[i]->metric);
        }
        for (int t = 0; t < QK_TURBO; t += 8) {
            for (int u = 0; u < 8; ++u) {
                for (int i = 0; i < ABREAST; ++i) {
                    const int16_t * y = group[i]->y + turbo_position(t);
                    came[t + u][i]    = step(states[i], (tables.error + TURBO_REACH)[y[8 * u]]);
                }
            }
        }
        uint64_t path[ABREAST];  // the lowest four bits are the lane
        for (int i = 0; i < ABREAST; ++i) {
            store_states(group[i]->metric, states[i]);
            group[i]->end = closed ? group[i]->start : best_lane(group[i]->metric);
            path[i]       = (uint64_t) group[i]->end;
        }
        for (int t = QK_TURBO - 1; t >= 0; --t) {
            for (int i = 0; i < ABREAST; ++i) {
                path[i] = path[i] << 1 | (came[t][i] >> bits_per_lane * (path[i] & 15) & 1);
            }
        }
        for (int i = 0; i < ABREAST; ++i) {
            group[i]->path  = path[i] >> 4 | (uint64_t) group[i]->end << 60;
            group[i]->start = (int) (path[i] & 15);
        }
    }
}

// The same as in ggml-turbo.c.
int16_t judge_again(const Tables & tables, const int16_t * v, uint16_t * metric) {
    Block   wide[TURBO_WIDE_TRIALS];
    Block * list[TURBO_WIDE_TRIALS];
    for (int trial = 0; trial < TURBO_WIDE_TRIALS; ++trial) {
        list[trial] = &wide[trial];
        turbo_scale(v, tables.book.wide[trial], wide[trial].y);
        memset(wide[trial].metric, 0, sizeof(wide[trial].metric));
    }
    turn(tables, list, TURBO_WIDE_TRIALS, false);
    int best = 0;
    for (int trial = 1; trial < TURBO_WIDE_TRIALS; ++trial) {
        best = turbo_less(wide[trial].metric[wide[trial].end], tables.book.wide[trial],
                          wide[best].metric[wide[best].end], tables.book.wide[best])
                   ? trial
                   : best;
    }
    for (int lane = 0; lane < TURBO_STATES; ++lane) {
        metric[lane] = (uint16_t) (wide[best].metric[lane] - wide[best].metric[wide[best].end]);
    }
    return tables.book.wide[best];
}

template <const Tables & tables, class Stored>
void quantize(void (*store)(uint16_t, uint64_t, const uint8_t *, Stored *), const float * x, Stored * to, int64_t n) {
    constexpr int CHUNK = 16;
    Block         blocks[CHUNK];
    Block *       list[CHUNK];
    for (; n > 0; n -= CHUNK, x += CHUNK * QK_TURBO, to += CHUNK) {
        const int here   = n < CHUNK ? (int) n : CHUNK;
        int       listed = 0;
        for (int i = 0; i < here; ++i) {
            Block & block = blocks[i];
            block.peak    = turbo_prepare(&tables.book, x + QK_TURBO * i, block.v);
            if (block.peak != 0.0f) {
                int16_t best = judge(tables, block.v, block.metric);
                if (best == 0) {
                    best = judge_again(tables, block.v, block.metric);
                }
                turbo_scale(block.v, best, block.y);
                list[listed++] = &block;
            }
        }
        turn(tables, list, listed, false);
        int open = 0;
        for (int i = 0; i < listed; ++i) {
            if (list[i]->start != list[i]->end) {
                turbo_begin_in(list[i]->start, list[i]->metric);
                list[open++] = list[i];
            }
        }
        turn(tables, list, open, true);
        for (int i = 0; i < here; ++i) {
            const Block & block = blocks[i];
            uint8_t       high[QK_TURBO];
            uint64_t      path   = block.path;
            uint16_t      radius = 0;
            if (block.peak != 0.0f) {
                radius = turbo_finish(&tables.book, block.peak, block.v, block.y, path, high);
            }
            if (radius == 0) {
                path = 0;
                memset(high, 0, sizeof(high));
            }
            store(radius, path, high, to + i);
        }
    }
}

}  // namespace

void ggml_cpu_turbo4_quantize_row(const float * x, void * y, int64_t k) {
    quantize<tables4>(turbo_store_4, x, (block_turbo4 *) y, k / QK_TURBO);
}

void ggml_cpu_turbo3_quantize_row(const float * x, void * y, int64_t k) {
    quantize<tables3>(turbo_store_3, x, (block_turbo3 *) y, k / QK_TURBO);
}

void ggml_cpu_turbo2_quantize_row(const float * x, void * y, int64_t k) {
    quantize<tables2>(turbo_store_2, x, (block_turbo2 *) y, k / QK_TURBO);
}

#else

void ggml_cpu_turbo4_quantize_row(const float * x, void * y, int64_t k) {
    ggml_turbo4_quantize_row(x, y, k);
}

void ggml_cpu_turbo3_quantize_row(const float * x, void * y, int64_t k) {
    ggml_turbo3_quantize_row(x, y, k);
}

void ggml_cpu_turbo2_quantize_row(const float * x, void * y, int64_t k) {
    ggml_turbo2_quantize_row(x, y, k);
}

#endif
