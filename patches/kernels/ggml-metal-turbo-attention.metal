// Attention over a cache with TurboQuant types on Metal. A row is one query of one head; all heads that share a head of K
// and V are rows of one threadgroup, so that a block is read and decoded once for all of them.
//
// `few` takes up to 16 rows: a simdgroup decodes what its lanes hold of K and V straight into matrices, with no threadgroup
// memory and no barrier, and simdgroups share the positions. `many` takes any number: a threadgroup decodes a tile of K and
// V into threadgroup memory for all its rows. Either may leave the positions to several threadgroups; `join` adds them up.
//
// Both work on transposed scores, positions by rows: the matrix of weights then is, as it lies in the lanes, the right
// operand for the product with V, and no score goes through memory. Which element a lane holds is not documented by Apple,
// but the same on all its GPUs, and MLX's kernels depend on it as well.

constant short FC_turbo_k        [[function_constant(TURBO_FC_K)]];
constant short FC_turbo_v        [[function_constant(TURBO_FC_V)]];
constant short FC_turbo_features [[function_constant(TURBO_FC_FEATURES)]];

#define TURBO_HAS(feature) ((FC_turbo_features & TURBO_HAS_##feature) != 0)
#define TURBO_UNROLL _Pragma("clang loop unroll(full)")

// A lane's place in a matrix of 8 by 8: it holds this element and the one right of it.
struct turbo_place {
    ushort row, column;
};

static inline turbo_place turbo_place_of(ushort lane) {
    return { ushort((lane / 4 & 4) + lane / 2 % 4), ushort((lane / 4 & 2) * 2 + lane % 2 * 2) };
}

// d += a * b, each as the lane's two elements.
static inline void turbo_multiply(thread float2 & d, half2 a, half2 b) {
    simdgroup_half8x8  ma, mb;
    simdgroup_float8x8 md;
    reinterpret_cast<thread half2 &>(ma.thread_elements())  = a;
    reinterpret_cast<thread half2 &>(mb.thread_elements())  = b;
    reinterpret_cast<thread float2 &>(md.thread_elements()) = d;
    simdgroup_multiply_accumulate(md, ma, mb, md);
    d = reinterpret_cast<thread float2 &>(md.thread_elements());
}

template <short STRIDE, bool TRANSPOSED>
static inline half2 turbo_matrix(threadgroup const half * from) {
    simdgroup_half8x8 m;
    simdgroup_load(m, from, STRIDE, 0, TRANSPOSED);
    return reinterpret_cast<thread half2 &>(m.thread_elements());
}

// Over all lanes that hold the same columns.
static inline float2 turbo_column_max(float2 x) {
    x = max(x, simd_shuffle_xor(x, 2));
    x = max(x, simd_shuffle_xor(x, 4));
    return max(x, simd_shuffle_xor(x, 16));
}

static inline float2 turbo_column_sum(float2 x) {
    x += simd_shuffle_xor(x, 2);
    x += simd_shuffle_xor(x, 4);
    return x + simd_shuffle_xor(x, 16);
}

// A row: where its query lies, its mask and its result. Rows beyond the last are computed as the last, and not written.
struct turbo_row {
    bool                  real;
    device const float *  query;
    device const half *   mask;
    float                 slope;
    int32_t               head;
    int64_t               number;  // among all rows of the result
};

static inline turbo_row turbo_row_of(constant turbo_attention_args & args, int32_t row, int32_t kv_head, int32_t batch,
                                     device const uchar * q, device const uchar * mask) {
    const int32_t rows = args.queries * args.group, last = min(row, rows - 1), query = last / args.group;
    turbo_row r;
    r.real   = row < rows;
    r.head   = kv_head * args.group + last % args.group;
    r.query  = (device const float *) (q + query * args.q1 + r.head * args.q2 + batch * args.q3);
    r.number = ((int64_t) batch * args.queries + query) * args.heads + r.head;
    r.mask   = nullptr;
    r.slope  = 1.0f;
    if (TURBO_HAS(MASK)) {
        r.mask = (device const half *) (mask + query * args.mask1 + r.head % args.mask_heads * args.mask2 +
                                        batch % args.mask_batches * args.mask3);
    }
    if (TURBO_HAS(BIAS)) {
        const int32_t beyond = r.head - args.heads_log2;
        r.slope = beyond < 0 ? pow(args.m0, float(r.head + 1)) : pow(args.m1, float(2 * beyond + 1));
    }
    return r;
}

// A query's values as the matrices take them: scaled, and what is beyond a half becomes its largest.
static inline half2 turbo_query(float2 values, float scale) {
    return half2(clamp(values * scale, float2(-65504.0f), float2(65504.0f)));
}

// What is added to the scores of TILES positions, 8 apart, of which the last of all may be behind the end. What is hidden
// there is so by the lowest float, which, unlike an infinity, may be written in fast arithmetic.
template <short TILES, bool END>
static inline void turbo_bias_of(constant turbo_attention_args & args, thread const turbo_row * rows, int32_t position,
                                 thread float2 * bias) {
    TURBO_UNROLL for (short i = 0; i < TILES; ++i, position += 8) {
        const int32_t at = END ? min(position, args.positions - 1) : position;
        bias[i] = TURBO_HAS(MASK) ? float2(float(rows[0].mask[at]), float(rows[1].mask[at])) : float2(0);
        if (TURBO_HAS(BIAS)) {
            bias[i] *= float2(rows[0].slope, rows[1].slope);
        }
        bias[i] = END && position > at ? float2(-FLT_MAX) : bias[i];
    }
}

// The same from `first` on, for a lane that has the positions `first` + `mine` and so on. Returns whether any is visible.
template <short TILES>
static inline bool turbo_bias(constant turbo_attention_args & args, thread const turbo_row * rows, int32_t first, ushort mine,
                              thread float2 * bias) {
    if (first + 8 * TILES > args.positions) {
        turbo_bias_of<TILES, true>(args, rows, first + mine, bias);
    } else {
        turbo_bias_of<TILES, false>(args, rows, first + mine, bias);
        if (!TURBO_HAS(MASK)) {
            return true;
        }
    }
    bool visible = false;
    TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
        visible = visible || bias[i].x > -65504.0f || bias[i].y > -65504.0f;
    }
    return visible;
}

// Scores of TILES times 8 positions to weights, which fade what was summed before.
template <short TILES, short OUT>
static inline void turbo_softmax(constant turbo_attention_args & args, thread const float2 * scores, thread const float2 * bias,
                                 thread half2 * weights, thread float2 & top, thread float2 & sum, thread float2 * out) {
    float2 s[TILES], high = top;
    TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
        s[i] = TURBO_HAS(CAP) ? args.cap * precise::tanh(scores[i]) + bias[i] : scores[i] + bias[i];
        high = max(high, s[i]);
    }
    high = turbo_column_max(high);
    const float2 fade = exp(top - high);
    top = high;
    sum *= fade;
    TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
        const float2 weight = exp(s[i] - high);
        sum += weight;
        weights[i] = half2(weight);
    }
    // Long contexts seldom bring a new highest score
    if (simd_any(fade.x < 1 || fade.y < 1)) {
        TURBO_UNROLL for (short i = 0; i < OUT; ++i) {
            out[i] *= fade;
        }
    }
}

// The factor that makes a sum of weighted values a result: with the sinks, and over the sum of the weights.
static inline float turbo_factor(float top, float sum, device const float * sinks, int32_t head) {
    if (TURBO_HAS(SINKS)) {
        const float high = max(top, sinks[head]), fade = exp(top - high);
        sum = sum * fade + exp(sinks[head] - high);
        return fade / sum;
    }
    return sum == 0 ? 0 : 1 / sum;
}

// Where a row's result goes: to its place, by a factor; or, to be joined with others, as it is into the work memory, which
// has the tops and sums of all parts behind the results.
struct turbo_target {
    device float * to;
    float          factor;
};

static inline turbo_target turbo_target_of(constant turbo_attention_args & args, thread const turbo_row & row, float top, float sum,
                                           bool first, int32_t split, ushort width, device const float * sinks, device float * dst) {
    if (args.splits == 1) {
        return { dst + row.number * width, turbo_factor(top, sum, sinks, row.head) };
    }
    const int64_t part = row.number * args.splits + split, parts = (int64_t) args.batches * args.queries * args.heads * args.splits;
    if (first) {
        dst[parts * width + 2 * part]     = top;
        dst[parts * width + 2 * part + 1] = sum;
    }
    return { dst + part * width, 1 };
}

#define TURBO_SIMDGROUPS 4  // of a threadgroup of `few`

// Heads of K and V, of which PARTS simdgroups hold a slice each; 8 * ROWS rows in a threadgroup.
template <short DK, short DV, short PARTS, short ROWS>
kernel void kernel_turbo_attention_few(
        constant turbo_attention_args & args,
        device const uchar * q,
        device const uchar * k,
        device const uchar * v,
        device const uchar * mask,
        device const float * sinks,
        device       float * dst,
        uint3  group [[threadgroup_position_in_grid]],
        ushort lane  [[thread_index_in_simdgroup]],
        ushort simd  [[simdgroup_index_in_threadgroup]]) {
    constexpr short K = DK / PARTS, V = DV / PARTS, TILES = TURBO_TILE / 8, STRIPES = TURBO_SIMDGROUPS / PARTS;
    constexpr short K_UNITS = K / 32, V_UNITS = V / 64;  // that a lane decodes of a position
    static_assert(K % 32 == 0 && V % 64 == 0, "a lane holds whole units");
    // Of a position the lanes hold a quarter of K each, and of two positions an eighth of V. They lie in the lanes as in
    // these arrays, one after the other, so the same lanes of two simdgroups hold the same.
    constexpr short OUT = V / 8, JOINED = PARTS * ROWS * OUT * 32, EXCHANGED = PARTS > 1 ? TURBO_SIMDGROUPS * ROWS * TILES * 32 : 0;
    threadgroup float2 shared[JOINED > EXCHANGED ? JOINED : EXCHANGED];
    threadgroup float4 state[PARTS * ROWS * 32];

    const turbo_place me = turbo_place_of(lane);
    const ushort stripe = simd / PARTS, part = simd % PARTS;
    const int32_t kv_heads = args.heads / args.group, kv_head = group.y % kv_heads, batch = group.z;
    const int32_t kv_batch = batch / (args.batches / args.kv_batches);
    k += kv_head * args.k2 + kv_batch * args.k3;
    v += kv_head * args.v2 + kv_batch * args.v3;

    turbo_row rows[ROWS][2];
    half2     query[ROWS][K / 8];
    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        TURBO_UNROLL for (short i = 0; i < 2; ++i) {
            const int32_t row = (group.y / kv_heads * ROWS + r) * 8 + me.column + i;
            rows[r][i] = turbo_row_of(args, row, kv_head, batch, q, mask);
        }
        TURBO_UNROLL for (short t = 0; t < K_UNITS; ++t) {
            const ushort at = turbo_unit_at(part * (K / 8) + me.row / 2 * K_UNITS + t) + me.row % 2;
            TURBO_UNROLL for (short i = 0; i < 4; ++i) {
                const ushort value = at + 2 * i + (i < 2 ? 0 : 4);
                query[r][4 * t + i] = turbo_query(float2(rows[r][0].query[value], rows[r][1].query[value]), args.scale);
            }
        }
    }

    float2 top[ROWS], sum[ROWS], out[ROWS][OUT];
    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        top[r] = -FLT_MAX / 2;
        sum[r] = 0;
        TURBO_UNROLL for (short i = 0; i < OUT; ++i) {
            out[r][i] = 0;
        }
    }

    const int32_t blocks = (args.positions + TURBO_TILE - 1) / TURBO_TILE, step = args.splits * STRIPES;
    const int32_t rounds = (blocks + step - 1) / step;
    for (int32_t round = 0; round < rounds; ++round) {
        const int32_t first = (round * step + group.x * STRIPES + stripe) * TURBO_TILE;

        float2 bias[ROWS][TILES];
        bool   visible = false;
        TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
            visible = turbo_bias<TILES>(args, rows[r], first, me.row, bias[r]) || visible;
        }
        visible = simd_any(visible);
        if (PARTS == 1 && !visible) {
            continue;
        }

        float2 scores[ROWS][TILES];
        TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
            TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                scores[r][i] = 0;
            }
            device const uchar * row = k + min(first + 8 * i + me.row, args.positions - 1) * args.k1;
            TURBO_UNROLL for (short t = 0; t < K_UNITS; ++t) {
                half4 a, b;
                turbo_unit_of(FC_turbo_k, row, part * (K / 8) + me.column / 2 * K_UNITS + t, a, b);
                TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                    turbo_multiply(scores[r][i], a.xy, query[r][4 * t]);
                    turbo_multiply(scores[r][i], a.zw, query[r][4 * t + 1]);
                    turbo_multiply(scores[r][i], b.xy, query[r][4 * t + 2]);
                    turbo_multiply(scores[r][i], b.zw, query[r][4 * t + 3]);
                }
            }
        }
        if (PARTS > 1) {  // the other slices of K
            threadgroup float2 * mine = shared + simd * ROWS * TILES * 32 + lane;
            threadgroup_barrier(mem_flags::mem_threadgroup);
            TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                    mine[(r * TILES + i) * 32] = scores[r][i];
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            TURBO_UNROLL for (short p = 1; p < PARTS; ++p) {
                threadgroup const float2 * other = shared + (stripe * PARTS + (part + p) % PARTS) * ROWS * TILES * 32 + lane;
                TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                    TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                        scores[r][i] += other[(r * TILES + i) * 32];
                    }
                }
            }
            if (!visible) {
                continue;
            }
        }

        half2 weights[ROWS][TILES];
        TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
            turbo_softmax<TILES, OUT>(args, scores[r], bias[r], weights[r], top[r], sum[r], out[r]);
        }
        TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
            const int32_t at = first + 8 * i + me.column, last = args.positions - 1;
            device const uchar * row0 = v + min(at, last) * args.v1, * row1 = v + min(at + 1, last) * args.v1;
            TURBO_UNROLL for (short t = 0; t < V_UNITS; ++t) {
                const ushort unit = part * (V / 8) + me.row * V_UNITS + t;
                half4 a0, b0, a1, b1;
                turbo_unit_of(FC_turbo_v, row0, unit, a0, b0);
                turbo_unit_of(FC_turbo_v, row1, unit, a1, b1);
                TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                    TURBO_UNROLL for (short j = 0; j < 4; ++j) {
                        turbo_multiply(out[r][8 * t + j], half2(a0[j], a1[j]), weights[r][i]);
                        turbo_multiply(out[r][8 * t + 4 + j], half2(b0[j], b1[j]), weights[r][i]);
                    }
                }
            }
        }
    }

    // The simdgroups of a threadgroup, one after the other
    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        sum[r] = turbo_column_sum(sum[r]);
    }
    for (ushort turn = 0; turn < STRIPES; ++turn) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (stripe != turn) {
            continue;
        }
        TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
            threadgroup float4 * was  = state + (part * ROWS + r) * 32 + lane;
            threadgroup float2 * both = shared + (part * ROWS + r) * OUT * 32 + lane;
            if (turn > 0) {
                const float2 high = max(top[r], was->xy), fade = exp(top[r] - high), other = exp(was->xy - high);
                sum[r] = sum[r] * fade + was->zw * other;
                top[r] = high;
                TURBO_UNROLL for (short i = 0; i < OUT; ++i) {
                    out[r][i] = out[r][i] * fade + both[i * 32] * other;
                }
            }
            if (turn < STRIPES - 1) {
                *was = float4(top[r], sum[r]);
                TURBO_UNROLL for (short i = 0; i < OUT; ++i) {
                    both[i * 32] = out[r][i];
                }
            }
        }
    }
    if (stripe < STRIPES - 1) {
        return;
    }
    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        TURBO_UNROLL for (short i = 0; i < 2; ++i) {
            if (!rows[r][i].real) {
                continue;
            }
            const turbo_target target = turbo_target_of(args, rows[r][i], top[r][i], sum[r][i], me.row == 0 && part == 0, group.x, DV,
                                                        sinks, dst);
            TURBO_UNROLL for (short t = 0; t < V_UNITS; ++t) {
                device float * to = target.to + turbo_unit_at(part * (V / 8) + me.row * V_UNITS + t);
                thread const float2 * from = out[r] + 8 * t;
                *(device float4 *) to       = float4(from[0][i], from[1][i], from[2][i], from[3][i]) * target.factor;
                *(device float4 *) (to + 8) = float4(from[4][i], from[5][i], from[6][i], from[7][i]) * target.factor;
            }
        }
    }
}

// A tile of K or V, decoded by all threads of a threadgroup: TILE rows of D values, STRIDE apart.
template <short D, short TILE, short STRIDE>
static inline void turbo_decode_tile(short kind, device const uchar * from, uint64_t stride, int32_t first, int32_t last,
                                     threadgroup half * tile, ushort thread_, ushort threads) {
    for (ushort i = thread_; i < TILE * (D / 16); i += threads) {
        const ushort position = i / (D / 16), piece = i % (D / 16);
        device const uchar * row = from + min(first + position, last) * stride;
        threadgroup half4 * to = (threadgroup half4 *) (tile + position * STRIDE + 16 * piece);
        TURBO_UNROLL for (ushort side = 0; side < 2; ++side) {
            half4 a, b;
            turbo_unit_of(kind, row, 2 * piece + side, a, b);
            to[side]     = a;
            to[side + 2] = b;
        }
    }
}

#define TURBO_MOST_SIMDGROUPS 16  // of a threadgroup of `many`

// 8 * ROWS rows for each PARTS simdgroups; TILE positions at a time.
template <short DK, short DV, short PARTS, short ROWS, short TILE>
kernel void kernel_turbo_attention_many(
        constant turbo_attention_args & args,
        device const uchar * q,
        device const uchar * k,
        device const uchar * v,
        device const uchar * mask,
        device const float * sinks,
        device       float * dst,
        uint3  group   [[threadgroup_position_in_grid]],
        ushort thread_ [[thread_index_in_threadgroup]],
        ushort lane    [[thread_index_in_simdgroup]],
        ushort simd    [[simdgroup_index_in_threadgroup]],
        ushort simds   [[simdgroups_per_threadgroup]]) {
    constexpr short K = DK / PARTS, V = DV / PARTS, TILES = TILE / 8, OUT = V / 8;
    constexpr short K_STRIDE = DK + 8, V_STRIDE = DV + 8;  // rows begin in different banks
    // Together where there is room; else V takes the place of K
    constexpr bool BOTH = 2 * TILE * (K_STRIDE + V_STRIDE) <= 22528;
    constexpr short K_SIZE = TILE * K_STRIDE, V_SIZE = TILE * V_STRIDE;
    threadgroup half4  room[(BOTH ? K_SIZE + V_SIZE : K_SIZE > V_SIZE ? K_SIZE : V_SIZE) / 4];
    threadgroup float2 exchanged[PARTS > 1 ? TURBO_MOST_SIMDGROUPS * ROWS * TILES * 32 : 1];
    threadgroup bool   seen[2][TURBO_MOST_SIMDGROUPS];

    threadgroup half * tile = (threadgroup half *) room;

    const turbo_place me = turbo_place_of(lane);
    const ushort part = simd % PARTS, threads = 32 * simds;
    const int32_t kv_heads = args.heads / args.group, kv_head = group.y % kv_heads, batch = group.z;
    const int32_t kv_batch = batch / (args.batches / args.kv_batches), last = args.positions - 1;
    k += kv_head * args.k2 + kv_batch * args.k3;
    v += kv_head * args.v2 + kv_batch * args.v3;

    const int32_t first_row = (group.y / kv_heads * (simds / PARTS) + simd / PARTS) * 8 * ROWS;
    const bool used = first_row < args.queries * args.group;
    turbo_row rows[ROWS][2];
    half2     query[ROWS][K / 8];
    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        TURBO_UNROLL for (short i = 0; i < 2; ++i) {
            rows[r][i] = turbo_row_of(args, first_row + 8 * r + me.column + i, kv_head, batch, q, mask);
        }
        TURBO_UNROLL for (short i = 0; i < K / 8; ++i) {
            const ushort value = part * K + 8 * i + me.row;
            query[r][i] = turbo_query(float2(rows[r][0].query[value], rows[r][1].query[value]), args.scale);
        }
    }

    float2 top[ROWS], sum[ROWS], out[ROWS][OUT];
    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        top[r] = -FLT_MAX / 2;
        sum[r] = 0;
        TURBO_UNROLL for (short i = 0; i < OUT; ++i) {
            out[r][i] = 0;
        }
    }

    bool turn = false;
    for (int32_t first = group.x * TILE; first < args.positions; first += args.splits * TILE) {
        float2 bias[ROWS][TILES];
        bool   visible = false;
        if (used) {
            TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                visible = turbo_bias<TILES>(args, rows[r], first, me.row, bias[r]) || visible;
            }
        }
        visible = simd_any(visible);
        if (lane == 0) {
            seen[turn][simd] = visible;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const bool needed = simd_any(seen[turn][lane % simds]);
        turn = !turn;
        if (!needed) {
            continue;
        }

        turbo_decode_tile<DK, TILE, K_STRIDE>(FC_turbo_k, k, args.k1, first, last, tile, thread_, threads);
        const bool v_in_k = (FC_turbo_features & TURBO_V_IN_K) != 0;
        if (BOTH && !v_in_k) {
            turbo_decode_tile<DV, TILE, V_STRIDE>(FC_turbo_v, v, args.v1, first, last, tile + K_SIZE, thread_, threads);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);

        float2 scores[ROWS][TILES];
        if (visible) {
            TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                    scores[r][i] = 0;
                }
            }
            TURBO_UNROLL for (short j = 0; j < K / 8; ++j) {
                TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                    const half2 keys = turbo_matrix<K_STRIDE, false>(tile + 8 * i * K_STRIDE + part * K + 8 * j);
                    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                        turbo_multiply(scores[r][i], keys, query[r][j]);
                    }
                }
            }
        }
        if (PARTS > 1 && visible) {
            TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                    exchanged[((simd * ROWS + r) * TILES + i) * 32 + lane] = scores[r][i];
                }
            }
        }
        if (PARTS > 1 || (!BOTH && !v_in_k)) {
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        if (PARTS > 1 && visible) {
            TURBO_UNROLL for (short p = 1; p < PARTS; ++p) {
                threadgroup const float2 * other = exchanged + (simd - part + (part + p) % PARTS) * ROWS * TILES * 32 + lane;
                TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                    TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                        scores[r][i] += other[(r * TILES + i) * 32];
                    }
                }
            }
        }
        if (!BOTH && !v_in_k) {
            turbo_decode_tile<DV, TILE, V_STRIDE>(FC_turbo_v, v, args.v1, first, last, tile, thread_, threads);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        if (visible) {
            half2 weights[ROWS][TILES];
            TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                turbo_softmax<TILES, OUT>(args, scores[r], bias[r], weights[r], top[r], sum[r], out[r]);
            }
            threadgroup const half * slice = (BOTH && !v_in_k ? tile + K_SIZE : tile) + part * V;
            TURBO_UNROLL for (short i = 0; i < TILES; ++i) {
                TURBO_UNROLL for (short j = 0; j < OUT; ++j) {
                    const half2 values = v_in_k ? turbo_matrix<K_STRIDE, true>(slice + 8 * i * K_STRIDE + 8 * j) :
                                                  turbo_matrix<V_STRIDE, true>(slice + 8 * i * V_STRIDE + 8 * j);
                    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
                        turbo_multiply(out[r][j], values, weights[r][i]);
                    }
                }
            }
        }
    }

    TURBO_UNROLL for (short r = 0; r < ROWS; ++r) {
        sum[r] = turbo_column_sum(sum[r]);
        TURBO_UNROLL for (short i = 0; i < 2; ++i) {
            if (!rows[r][i].real) {
                continue;
            }
            const turbo_target target = turbo_target_of(args, rows[r][i], top[r][i], sum[r][i], me.row == 0 && part == 0, group.x,
                                                        DV, sinks, dst);
            TURBO_UNROLL for (short j = 0; j < OUT; ++j) {
                target.to[part * V + 8 * j + me.row] = out[r][j][i] * target.factor;
            }
        }
    }
}

// A threadgroup of a simdgroup for each row, over the parts of all threadgroups that shared its positions.
kernel void kernel_turbo_attention_join(
        constant turbo_join_args & args,
        device const float * work,
        device const float * sinks,
        device       float * dst,
        uint3  group  [[threadgroup_position_in_grid]],
        uint3  groups [[threadgroups_per_grid]],
        ushort lane   [[thread_index_in_simdgroup]]) {
    const int64_t row = group.x, parts = (int64_t) groups.x * args.splits;
    device const float * state = work + parts * args.width + 2 * row * args.splits;
    float top = -FLT_MAX / 2, sum = 0;
    for (int32_t i = lane; i < args.splits; i += 32) {
        top = max(top, state[2 * i]);
    }
    top = simd_max(top);
    for (int32_t i = lane; i < args.splits; i += 32) {
        sum += state[2 * i + 1] * exp(state[2 * i] - top);
    }
    const float factor = turbo_factor(top, simd_sum(sum), sinks, row % args.heads);
    for (int32_t at = lane; at < args.width / 4; at += 32) {
        float4 result = 0;
        for (int32_t i = 0; i < args.splits; ++i) {
            result += ((device const float4 *) (work + (row * args.splits + i) * args.width))[at] * exp(state[2 * i] - top);
        }
        ((device float4 *) (dst + row * args.width))[at] = result * factor;
    }
}

#define TURBO_ATTENTION_FEW(DK, DV, PARTS, ROWS)                                                                     \
    template [[host_name(TURBO_NAME(kernel_turbo_attention_few_dk##DK##_dv##DV##_rows##ROWS))]]                      \
    kernel turbo_attention_few_t kernel_turbo_attention_few<DK, DV, PARTS, ROWS>;

#define TURBO_ATTENTION_MANY(DK, DV, PARTS, ROWS, TILE)                                                              \
    template [[host_name(TURBO_NAME(kernel_turbo_attention_many_dk##DK##_dv##DV##_rows##ROWS))]]                     \
    kernel turbo_attention_many_t kernel_turbo_attention_many<DK, DV, PARTS, ROWS, TILE>;

typedef decltype(kernel_turbo_attention_few<64, 64, 1, 1>) turbo_attention_few_t;
typedef decltype(kernel_turbo_attention_many<64, 64, 1, 1, 32>) turbo_attention_many_t;

// Two times 8 rows where the registers have room for their results
TURBO_ATTENTION_FEW(64, 64, 1, 1)
TURBO_ATTENTION_FEW(64, 64, 1, 2)
TURBO_ATTENTION_FEW(128, 128, 1, 1)
TURBO_ATTENTION_FEW(128, 128, 1, 2)
TURBO_ATTENTION_FEW(192, 128, 1, 1)
TURBO_ATTENTION_FEW(192, 192, 1, 1)
TURBO_ATTENTION_FEW(256, 256, 1, 1)
TURBO_ATTENTION_FEW(320, 256, 1, 1)
TURBO_ATTENTION_FEW(512, 512, 2, 1)
TURBO_ATTENTION_FEW(576, 512, 2, 1)

// For long prompts, and for batches that would leave half of the rows idle
TURBO_ATTENTION_MANY(64, 64, 1, 1, 32)
TURBO_ATTENTION_MANY(64, 64, 1, 2, 32)
TURBO_ATTENTION_MANY(128, 128, 1, 1, 32)
TURBO_ATTENTION_MANY(128, 128, 1, 2, 32)
TURBO_ATTENTION_MANY(192, 128, 1, 1, 32)
TURBO_ATTENTION_MANY(192, 192, 1, 1, 32)
TURBO_ATTENTION_MANY(256, 256, 1, 1, 32)
TURBO_ATTENTION_MANY(320, 256, 1, 1, 32)
TURBO_ATTENTION_MANY(512, 512, 2, 1, 16)
TURBO_ATTENTION_MANY(576, 512, 2, 1, 16)
