// The TurboQuant cache types on Metal; ggml-turbo.h has the formats. This file is included by ggml-metal.metal behind its
// templates for attention, rows and copies, and gives them the decoders that they take.

// A block of 64 values with RAW plainly stored bits for each: turbo4 has three, turbo3 two, turbo2 one. A plane of single
// bits comes first if RAW is odd, then the pairs.
template <short RAW>
struct block_turbo {
    half   d;
    ushort path[4];
    ushort planes[4 * RAW];
};

static_assert(sizeof(block_turbo<3>) == 34 && sizeof(block_turbo<2>) == 26 && sizeof(block_turbo<1>) == 18,
              "the blocks of ggml-turbo.h");

// The codebooks of ggml-turbo.c with bits 0 and 1 of the index exchanged, which saves an operation. As halves they need no
// conversion, and each lies in one line of 64 bytes, so that a load by 32 lanes touches a single line whatever they ask for.
alignas(64) constexpr constant static half turbo4_levels[32] = {
    -116, -80, -95, -69, -60, -46, -52, -40, -34, -24, -29, -20, -15, -6, -11, -2,
    2, 11, 6, 15, 20, 29, 24, 34, 40, 52, 46, 60, 69, 95, 80, 116,
};
alignas(64) constexpr constant static half turbo3_levels[16] = {
    -94, -49, -66, -37, -27, -11, -19, -4, 4, 19, 11, 27, 37, 66, 49, 94,
};
alignas(64) constexpr constant static half turbo2_levels[8] = {
    -92, -28, -51, -9, 9, 51, 28, 92,
};

// Two 16-bit words as they lie, since a block is aligned to no more.
static inline uint turbo_load(device const ushort * words) {
    return as_type<uint>(ushort2(*(device const packed_ushort2 *) words));
}

// The path bits of four values and of the four before each, in bits 0 to 4 of four bytes. The values have bit `bit` of the
// bytes of `own`; `last` is the upper half of the byte before these.
static inline uint turbo_window(uint own, uint last, ushort bit) {
    return (bit < 4 ? own << 4 | last : own) >> (bit & 3);
}

// Four levels: of the values that have bit `bit` of the bytes of a plane and pair `pair` of the bytes of `pairs`.
template <short RAW>
static inline half4 turbo_levels(uint window, uint pairs, uint plane, ushort bit, ushort pair) {
    // The code 1 + D + D^4 gives bit 1 of the index and D + D^2 + D^3 bit 0; here they are exchanged
    const uint sum = window ^ window >> 1;
    uint index = ((window ^ sum >> 3) & 0x01010101) | ((sum ^ window >> 2) & 0x02020202);
    if (RAW & 2) {
        index |= rotate(pairs, (2u - 2u * pair) % 32) & 0x0c0c0c0c;
    }
    if (RAW & 1) {
        index |= rotate(plane, ((RAW == 3 ? 4u : 2u) - bit) % 32) & (RAW == 3 ? 0x10101010 : 0x04040404);
    }
    constant const half * level = RAW == 3 ? turbo4_levels : RAW == 2 ? turbo3_levels : turbo2_levels;
    // 16-bit registers spare half of the shifts that four bytes of a word would take
    const ushort2 two = as_type<ushort2>(index);
    return half4(level[two.x & 0xff], level[two.x >> 8], level[two.y & 0xff], level[two.y >> 8]);
}

// The product is exact in a float, so it is rounded once to a half, whichever way.
static inline void turbo_times(half4 levels, half d, thread half4 & values) {
    values = levels * d;
}

static inline void turbo_times(half4 levels, half d, thread float4 & values) {
    values = float4(levels) * float(d);
}

template <short RAW, typename type4>
void dequantize_turbo_t4(device const block_turbo<RAW> * block, short il, thread type4 & reg) {
    const ushort side = il & 1, bit = ushort(il) / 2, pair = ushort(il) / 4;
    const uint   own  = turbo_load(block->path + 2 * side);
    device const ushort * qs = block->planes + (RAW == 3 ? 4 : 0) + 2 * (il & 3);
    const uint pairs = RAW & 2 ? turbo_load(qs) : 0, plane = RAW & 1 ? turbo_load(block->planes + 2 * side) : 0;
    const uint window = turbo_window(own, block->path[3 - 2 * side] >> 12, bit);
    turbo_times(turbo_levels<RAW>(window, pairs, plane, bit, pair), block->d, reg);
}

template <short RAW, typename type4x4>
void dequantize_turbo(device const block_turbo<RAW> * block, short il, thread type4x4 & reg) {
    const half d        = block->d;
    const uint own[2]   = { turbo_load(block->path), turbo_load(block->path + 2) };
    const uint plane[2] = { RAW & 1 ? turbo_load(block->planes) : 0, RAW & 1 ? turbo_load(block->planes + 2) : 0 };
    device const ushort * qs = block->planes + (RAW == 3 ? 4 : 0);
    // An index that is not known would put the arrays into memory
    _Pragma("clang loop unroll(full)") for (short i = 0; i < 4; ++i) {
        const ushort bit = 2 * il + i / 2, side = i & 1;
        const uint   pairs = RAW & 2 ? turbo_load(qs + 2 * i) : 0, window = turbo_window(own[side], own[1 - side] >> 28, bit);
        turbo_times(turbo_levels<RAW>(window, pairs, plane[side], bit, il), d, reg[i]);
    }
}

// Attention takes K and V of any two of these types. Which they are is known when a pipeline is made, so that one kernel
// for each head size serves all pairs, where a kernel for each pair would make a hundred more of them. A dequantizer is
// given the row and counts from its beginning, because the size of a block is not known before.
#define TURBO_ATTENTION_F16  0
#define TURBO_ATTENTION_Q8_0 8

constant short FC_turbo_k [[function_constant(60000)]];
constant short FC_turbo_v [[function_constant(60001)]];

struct turbo_row_k { uchar byte; };
struct turbo_row_v { uchar byte; };

template <typename type4>
static inline void turbo_row_t4(short kind, device const void * row, ushort i, thread type4 & reg) {
    switch (kind) {
        case 3:                    dequantize_turbo_t4((device const block_turbo<3> *) row + i / 16, i % 16, reg); break;
        case 2:                    dequantize_turbo_t4((device const block_turbo<2> *) row + i / 16, i % 16, reg); break;
        case 1:                    dequantize_turbo_t4((device const block_turbo<1> *) row + i / 16, i % 16, reg); break;
        case TURBO_ATTENTION_Q8_0: dequantize_q8_0_t4((device const block_q8_0 *) row + i / 8, i % 8, reg); break;
        default:                   reg = (type4) ((device const half4 *) row)[i]; break;
    }
}

template <typename type4x4>
static inline void turbo_row(short kind, device const void * row, ushort i, thread type4x4 & reg) {
    switch (kind) {
        case 3:                    dequantize_turbo((device const block_turbo<3> *) row + i / 4, i % 4, reg); break;
        case 2:                    dequantize_turbo((device const block_turbo<2> *) row + i / 4, i % 4, reg); break;
        case 1:                    dequantize_turbo((device const block_turbo<1> *) row + i / 4, i % 4, reg); break;
        case TURBO_ATTENTION_Q8_0: dequantize_q8_0((device const block_q8_0 *) row + i / 2, i % 2, reg); break;
        default:                   reg = (type4x4) ((device const half4x4 *) row)[i]; break;
    }
}

template <typename type4>
void dequantize_turbo_k_t4(device const turbo_row_k * row, short i, thread type4 & reg) {
    turbo_row_t4(FC_turbo_k, row, i, reg);
}

template <typename type4>
void dequantize_turbo_v_t4(device const turbo_row_v * row, short i, thread type4 & reg) {
    turbo_row_t4(FC_turbo_v, row, i, reg);
}

template <typename type4x4>
void dequantize_turbo_k(device const turbo_row_k * row, short i, thread type4x4 & reg) {
    turbo_row(FC_turbo_k, row, i, reg);
}

template <typename type4x4>
void dequantize_turbo_v(device const turbo_row_v * row, short i, thread type4x4 & reg) {
    turbo_row(FC_turbo_v, row, i, reg);
}

// The types between dequantizer and result are those of the other quantized types. 64 pieces of 16 values and 256 of 4 are
// more than a row of any head size has, so i is never divided.
#define TURBO_EXT_TYPES                                                                                   \
    half, half4, simdgroup_half8x8, half, half4x4, simdgroup_half8x8, half, half4x4, simdgroup_half8x8,   \
    float, simdgroup_float8x8, float, float2, simdgroup_float8x8, float, float4, simdgroup_float8x8
#define TURBO_VEC_TYPES half4, half4, half4, float, float, float4, float4

#define TURBO_NAME(name) #name

#define TURBO_ATTENTION(DK, DV, NE)                                                                       \
    template [[host_name(TURBO_NAME(kernel_flash_attn_ext_turbo_dk##DK##_dv##DV))]]                    \
    kernel flash_attn_ext_t kernel_flash_attn_ext<TURBO_EXT_TYPES, turbo_row_k, 64, dequantize_turbo_k,   \
                                                  turbo_row_v, 64, dequantize_turbo_v, DK, DV>;           \
    template [[host_name(TURBO_NAME(kernel_flash_attn_ext_vec_turbo_dk##DK##_dv##DV))]]                \
    kernel flash_attn_ext_vec_t kernel_flash_attn_ext_vec<TURBO_VEC_TYPES, turbo_row_k, 256, dequantize_turbo_k_t4, \
                                                          turbo_row_v, 256, dequantize_turbo_v_t4, DK, DV, NE>;

// The last is how many positions a simdgroup reads at once, as for the other types of these sizes
TURBO_ATTENTION(64, 64, 2)
TURBO_ATTENTION(128, 128, 1)
TURBO_ATTENTION(192, 192, 2)
TURBO_ATTENTION(192, 128, 2)
TURBO_ATTENTION(256, 256, 1)
TURBO_ATTENTION(320, 256, 2)
TURBO_ATTENTION(512, 512, 1)
TURBO_ATTENTION(576, 512, 2)

#define TURBO_DECODERS(TYPE, RAW)                                                                         \
    template [[host_name(TURBO_NAME(kernel_get_rows_##TYPE))]]                                         \
    kernel get_rows_q_t kernel_get_rows_q<block_turbo<RAW>, 4, dequantize_turbo>;                         \
    template [[host_name(TURBO_NAME(kernel_cpy_##TYPE##_f32))]]                                        \
    kernel cpy_q_f_t kernel_cpy_q_f32<float4x4, block_turbo<RAW>, 4, dequantize_turbo>;                   \
    template [[host_name(TURBO_NAME(kernel_cpy_##TYPE##_f16))]]                                        \
    kernel cpy_q_f_t kernel_cpy_q_f32<half4x4, block_turbo<RAW>, 4, dequantize_turbo>;

TURBO_DECODERS(turbo4, 3)
TURBO_DECODERS(turbo3, 2)
TURBO_DECODERS(turbo2, 1)

// -- the encoder: ggml-turbo-encode.h on a simdgroup, with the same result bit for bit ----------------------------
//
// Lane t has the values t and t + 32 of a block in the order of the trellis. On the way through it, lane s is state s, and
// lane 16 + s is the same state of another trial or of none; the ways into a state come by shuffles. So a block needs no
// threadgroup memory and no barrier. What the reference has in tables of 12 KiB is computed: every error once, by the lane
// that has the value.

constexpr constant static short turbo_trials[3][4] = {
    { 104, 119, 136, 156 }, { 184, 197, 210, 224 }, { 224, 232, 240, 248 },
};
constexpr constant static short turbo_wide_trials[3][8] = {
    { 50, 61, 75, 91, 104, 119, 136, 156 }, { 90, 105, 120, 138, 160, 184, 212, 244 }, { 96, 110, 127, 146, 168, 193, 222, 256 },
};

// Level k of the codebook, in ascending order.
template <short RAW>
static inline int turbo_level(short k) {
    constant const half * level = RAW == 3 ? turbo4_levels : RAW == 2 ? turbo3_levels : turbo2_levels;
    return int(level[(k & ~3) | (k & 1) << 1 | (k >> 1 & 1)]);
}

// Squared errors of a value at y units to the nearest level of each of the four subsets.
template <short RAW>
static inline uint4 turbo_errors(int y) {
    uint4 best = uint4(1 << 20);
    for (short k = 0; k < 4 << RAW; k += 4) {
        const int4 level = int4(turbo_level<RAW>(k), turbo_level<RAW>(k + 1), turbo_level<RAW>(k + 2), turbo_level<RAW>(k + 3));
        const int4 distance = y - level * (RAW == 1 ? 1 : 2);
        best = min(best, uint4(distance * distance));
    }
    return (best + 2) >> 2;
}

static inline int2 turbo_scale(int2 v, int peak) {
    return ((v * peak >> 14) + 1) >> 1;
}

// Whether error a at peak pa is less than error b at peak pb, both in proportion to the block.
static inline bool turbo_less(uint a, uint pa, uint b, uint pb) {
    return ulong(a) * (pb * pb) < ulong(b) * (pa * pa);
}

// The subset of the codebook that the lane's state is reached through from the lower of the two states before it; from the
// upper one it is the subset whose number differs in bit 1.
static inline ushort turbo_subset(ushort lane) {
    const ushort u = lane & 1, before = lane >> 1 & 7;
    return (before ^ before >> 1 ^ before >> 2) & 1 | ((u ^ before) & 1) << 1;
}

static inline uint turbo_least(uint value) {
    for (ushort mask = 1; mask < 16; mask *= 2) {
        value = min(value, simd_shuffle_xor(value, mask));
    }
    return value;
}

// The best of four trials by 8-bit metrics, as a peak; 0 for a block that needs more bits. Lanes 0 to 15 follow the first
// two, the others the last two.
template <short RAW>
static inline short turbo_judge(int2 v, ushort lane, thread uint & metric) {
    const short  shift  = RAW == 3 ? 2 : RAW == 2 ? 3 : 4;
    const ushort subset = turbo_subset(lane), lower = lane >> 1 & 7, half_ = lane & 16;
    uint4 errors[2];  // of a value: a word for each trial, a byte for each subset
    for (short i = 0; i < 2; ++i) {
        for (short trial = 0; trial < 4; ++trial) {
            const int   y     = ((2 * (v[i] >> 8) + 1) * turbo_trials[RAW - 1][trial] + 128) >> 8;
            const uint4 error = min((turbo_errors<RAW>(y) + (1 << shift >> 1)) >> shift, uint4(255));
            errors[i][trial]  = error[0] | error[1] << 8 | error[2] << 16 | error[3] << 24;
        }
    }
    uint2 path = 0, total = 0, worst = 0;
    for (short t = 0; t < 64; ++t) {
        uint4 all;
        for (short trial = 0; trial < 4; ++trial) {
            all[trial] = simd_shuffle(t < 32 ? errors[0][trial] : errors[1][trial], t & 31);
        }
        const uint2 error = half_ ? all.zw : all.xy;
        const uint2 a = uint2(simd_shuffle(path.x, half_ + lower), simd_shuffle(path.y, half_ + lower)) + (error >> 8 * subset & 255);
        const uint2 b = uint2(simd_shuffle(path.x, half_ + lower + 8), simd_shuffle(path.y, half_ + lower + 8)) +
                        (error >> 8 * (subset ^ 2) & 255);
        path = min(min(a, b), uint2(255));
        if (t % 16 == 15) {
            const uint2 least = uint2(turbo_least(path.x), turbo_least(path.y));
            total += least;
            worst = max(worst, least);
            path -= least;
        }
    }
    short best = 0;
    uint  error = 0;
    for (short trial = 0; trial < 4; ++trial) {
        const uint sum = simd_shuffle(trial & 1 ? total.y : total.x, trial / 2 * 16);
        if (trial == 0 || turbo_less(sum, turbo_trials[RAW - 1][trial], error, turbo_trials[RAW - 1][best])) {
            best  = trial;
            error = sum;
        }
    }
    metric = simd_shuffle(best & 1 ? path.y : path.x, best / 2 * 16 + lane % 16) << shift;
    return simd_shuffle(best & 1 ? worst.y : worst.x, best / 2 * 16) < 128 ? turbo_trials[RAW - 1][best] : 0;
}

// A turn round the trellis in 16 bits. `came` keeps, for the lane's two values, from which half of the states the better way
// into each state came.
template <short RAW>
static inline void turbo_turn(int2 y, ushort lane, thread uint & metric, thread uint2 & came) {
    const ushort subset = turbo_subset(lane), lower = lane >> 1 & 7, shift = 16 * (subset & 1);
    uint2 errors[2];  // of a value: subsets 0 and 1 in a word, 2 and 3 in the other
    for (short i = 0; i < 2; ++i) {
        const uint4 error = turbo_errors<RAW>(y[i]);
        errors[i] = uint2(error[0] | error[1] << 16, error[2] | error[3] << 16);
    }
    for (short t = 0; t < 64; ++t) {
        const uint2 own  = t < 32 ? errors[0] : errors[1];
        const uint2 both = uint2(simd_shuffle(own.x, t & 31), simd_shuffle(own.y, t & 31));
        const uint  ea = (subset & 2 ? both.y : both.x) >> shift & 0xffff, eb = (subset & 2 ? both.x : both.y) >> shift & 0xffff;
        const uint  a = min(simd_shuffle(metric, lower) + ea, 0x7fffu), b = min(simd_shuffle(metric, lower + 8) + eb, 0x7fffu);
        const uint  ways = uint((simd_vote::vote_t) simd_ballot(b < a)) & 0xffff;
        metric = min(a, b);
        came.x = t == lane ? ways : came.x;
        came.y = t == lane + 32 ? ways : came.y;
    }
}

// The state with the least metric, the first of several.
static inline ushort turbo_best_state(uint metric, ushort lane) {
    return turbo_least(metric << 4 | lane % 16) & 15;
}

// The path of a turn that ends in a state, and where it began.
static inline uint2 turbo_trace(uint2 came, thread ushort & state) {
    uint2 path = 0;
    for (short t = 63; t >= 0; --t) {
        const uint ways = simd_shuffle(t < 32 ? came.x : came.y, t & 31);
        if (t < 32) {
            path.x |= uint(state & 1) << t;
        } else {
            path.y |= uint(state & 1) << (t - 32);
        }
        state = state >> 1 | (ways >> state & 1) << 3;
    }
    return path;
}

// FP16 of a positive number, rounded to nearest even; a device may take small ones for zero.
static inline ushort turbo_half_bits(float value) {
    const uint bits = as_type<uint>(value);
    if (bits < 0x38800000) {
        return as_type<uint>(value + 0.5f) - 0x3f000000;
    }
    return (bits + 0x0fff + (bits >> 13 & 1) - 0x38000000) >> 13;
}

template <short RAW>
static inline void quantize_turbo(device const float * src, device block_turbo<RAW> * dst, ushort lane) {
    const short first = 8 * (lane & 7) + (lane >> 3);  // the value that comes t-th; 32 later comes the fourth after it
    const float limit = 65504.0f * turbo_level<RAW>((4 << RAW) - 1);

    // Magnitudes are in the order of their bits, and what is infinite or no number is sorted out before it is computed with
    const uint2 bits = uint2(as_type<uint>(src[first]), as_type<uint>(src[first + 4]));
    const uint2 size = min(select(bits & 0x7fffffff, uint2(0), (bits & 0x7fffffff) > 0x7f800000), uint2(as_type<uint>(limit)));
    const float peak = as_type<float>(simd_max(max(size.x, size.y)));

    uint2  path = 0, high = 0;
    ushort radius = 0;
    if (peak >= 0x1p-24f) {
        // Divisions are rounded as the reference's are, whatever the library is compiled for
        const float scale = precise::divide(32767.0f, peak);
        const int2  v     = int2(as_type<float2>(size | (bits & 0x80000000)) * scale);
        uint  metric, end;
        uint2 came;
        short best = turbo_judge<RAW>(v, lane, metric);
        if (best == 0) {
            uint least = 0;
            for (short trial = 0; trial < 8; ++trial) {
                const short wide = turbo_wide_trials[RAW - 1][trial];
                end = 0;
                turbo_turn<RAW>(turbo_scale(v, wide), lane, end, came);
                const uint error = turbo_least(end);
                if (trial == 0 || turbo_less(error, wide, least, best)) {
                    least  = error;
                    best   = wide;
                    metric = end - error;
                }
            }
        }
        const int2 y = turbo_scale(v, best);
        turbo_turn<RAW>(y, lane, metric, came);
        const ushort last = turbo_best_state(metric, lane);
        ushort start = last;
        path = turbo_trace(came, start);
        if (start != last) {
            metric = lane % 16 == start ? 0 : 0x7fff;
            turbo_turn<RAW>(y, lane, metric, came);
            path = turbo_trace(came, start);
        }

        // The nearest level of the subset that the path names
        const uint2 w0 = path << 1 | path.yx >> 31, w1 = path << 2 | path.yx >> 30, w2 = path << 3 | path.yx >> 29,
                    w3 = path << 4 | path.yx >> 28;
        const uint2 subset = ((w0 ^ w1 ^ w2) >> lane & 1) | ((path ^ w0 ^ w3) >> lane & 1) << 1;
        int2 level = int2(turbo_level<RAW>(subset.x), turbo_level<RAW>(subset.y));
        for (short k = 4; k < 4 << RAW; k += 4) {
            const int2 next = int2(turbo_level<RAW>(k + subset.x), turbo_level<RAW>(k + subset.y));
            const bool2 beyond = y > ((level + next) >> (RAW == 1 ? 1 : 0));
            level = select(level, next, beyond);
            high += uint2(beyond);
        }
        const int   dot = simd_sum(v.x * level.x + v.y * level.y), energy = simd_sum(level.x * level.x + level.y * level.y);
        const float value = precise::divide(float(dot), float(energy)) * precise::divide(peak, 32767.0f);
        radius = dot > 0 ? turbo_half_bits(min(value, 65504.0f)) : 0;
        if (radius == 0) {
            path = high = 0;
        }
    }

    device uchar * out = (device uchar *) dst;
    if (lane == 0) {
        *(device ushort *) out = radius;
    }
    // A vote of all lanes is half a plane
    const uint2 plane = uint2(uint((simd_vote::vote_t) simd_ballot(high.x >> (RAW & 2) & 1)),
                              uint((simd_vote::vote_t) simd_ballot(high.y >> (RAW & 2) & 1)));
    if (lane < 8) {
        out[2 + lane] = (lane < 4 ? path.x : path.y) >> 8 * (lane & 3);
        if (RAW & 1) {
            out[10 + lane] = (lane < 4 ? plane.x : plane.y) >> 8 * (lane & 3);
        }
    }
    if (RAW & 2) {
        const uint pairs = (high.x & 3) | (high.y & 3) << 8;
        uint byte = 0;
        for (short i = 0; i < 4; ++i) {
            const ushort t = 8 * (lane & 7) + (lane >> 3 & 1) + 2 * i;  // of value lane + 16 * i
            byte |= (simd_shuffle(pairs, t & 31) >> (t & 32) / 4 & 3) << 2 * i;
        }
        if (lane < 16) {
            out[(RAW == 3 ? 18 : 10) + lane] = byte;
        }
    }
}

// Rows: a threadgroup for each, a simdgroup for a block
template <typename TI, short RAW>
kernel void kernel_set_rows_turbo(
        constant ggml_metal_kargs_set_rows & args,
        device const char * src0,
        device const char * src1,
        device       char * dst,
        uint3  group [[threadgroup_position_in_grid]],
        ushort lane  [[thread_index_in_simdgroup]],
        ushort simd  [[simdgroup_index_in_threadgroup]],
        ushort simds [[simdgroups_per_threadgroup]]) {
    const int32_t i01 = group.x, i02 = group.y, i03 = group.z;
    const TI to = *(device const TI *) (src1 + i01 * args.nb10 + i02 % args.ne11 * args.nb11 + i03 % args.ne12 * args.nb12);
    device const float * row = (device const float *) (src0 + i01 * args.nb01 + i02 * args.nb02 + i03 * args.nb03);
    device block_turbo<RAW> * blocks = (device block_turbo<RAW> *) (dst + to * args.nb1 + i02 * args.nb2 + i03 * args.nb3);
    for (int32_t i = simd; i < args.nk0; i += simds) {
        quantize_turbo(row + 64 * i, blocks + i, lane);
    }
}

// Copies: threadgroups for pieces of a row follow each other as upstream's do; the result is counted block by block
template <short RAW>
kernel void kernel_cpy_turbo(
        constant ggml_metal_kargs_cpy & args,
        device const char * src0,
        device       char * dst,
        uint3  group  [[threadgroup_position_in_grid]],
        uint3  groups [[threadgroups_per_grid]],
        ushort lane   [[thread_index_in_simdgroup]],
        ushort simd   [[simdgroup_index_in_threadgroup]],
        ushort simds  [[simdgroups_per_threadgroup]]) {
    const int64_t i01 = group.x % args.ne01, i02 = group.y, i03 = group.z;
    device const char * row = src0 + i01 * args.nb01 + i02 * args.nb02 + i03 * args.nb03;
    const int64_t first = ((i03 * args.ne02 + i02) * args.ne01 + i01) * args.ne00;
    for (int64_t i = group.x / args.ne01 * simds + simd; i < args.nk0; i += groups.x / args.ne01 * simds) {
        int64_t at = first + 64 * i;
        const int64_t i0 = at % args.ne0;
        at /= args.ne0;
        device char * to = dst + i0 / 64 * args.nb0 + at % args.ne1 * args.nb1 + at / args.ne1 % args.ne2 * args.nb2 +
                           at / args.ne1 / args.ne2 * args.nb3;
        quantize_turbo((device const float *) row + 64 * i, (device block_turbo<RAW> *) to, lane);
    }
}

typedef decltype(kernel_set_rows_turbo<int64_t, 3>) set_rows_turbo_t;
typedef decltype(kernel_cpy_turbo<3>) cpy_turbo_t;

// Older builds name a kernel that writes rows by its result and the type of the numbers alone
#ifdef TURBO_SET_ROWS_F32
#    define TURBO_SET_ROWS_NAME(TYPE, INDEX) TURBO_NAME(kernel_set_rows_f32_##INDEX##_##TYPE)
#else
#    define TURBO_SET_ROWS_NAME(TYPE, INDEX) TURBO_NAME(kernel_set_rows_##TYPE##_##INDEX)
#endif

#define TURBO_ENCODERS(TYPE, RAW)                                                                         \
    template [[host_name(TURBO_SET_ROWS_NAME(TYPE, i64))]]                                                \
    kernel set_rows_turbo_t kernel_set_rows_turbo<int64_t, RAW>;                                          \
    template [[host_name(TURBO_SET_ROWS_NAME(TYPE, i32))]]                                                \
    kernel set_rows_turbo_t kernel_set_rows_turbo<int32_t, RAW>;                                          \
    template [[host_name(TURBO_NAME(kernel_cpy_f32_##TYPE))]]                                             \
    kernel cpy_turbo_t kernel_cpy_turbo<RAW>;

TURBO_ENCODERS(turbo4, 3)
TURBO_ENCODERS(turbo3, 2)
TURBO_ENCODERS(turbo2, 1)
