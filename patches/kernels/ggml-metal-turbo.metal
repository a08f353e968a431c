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

// The codebooks of ggml-turbo-codec.h, over 128, with bits 0 and 1 of the index exchanged, which saves an operation. As
// halves they need no conversion, and each lies in one line of 64 bytes, so that a load by 32 lanes touches a single line
// whatever they ask for.
#define TURBO_FOUR(a, b, c, d) half(a / 128.0f), half(c / 128.0f), half(b / 128.0f), half(d / 128.0f)
#define TURBO_EIGHT(a, b, c, d) TURBO_FOUR(-d, -c, -b, -a), TURBO_FOUR(a, b, c, d)

alignas(64) constexpr constant static half turbo4_levels[2][32] = {
    { TURBO_FOUR(-109, -90, -76, -65), TURBO_FOUR(-56, -49, -43, -37), TURBO_FOUR(-32, -27, -23, -18),
      TURBO_EIGHT(2, 6, 10, 14), TURBO_FOUR(18, 23, 27, 32), TURBO_FOUR(37, 43, 49, 56), TURBO_FOUR(65, 76, 90, 109) },
    { TURBO_FOUR(-127, -127, -118, -108), TURBO_FOUR(-99, -90, -80, -71), TURBO_FOUR(-61, -52, -43, -34),
      TURBO_EIGHT(0, 2, 15, 24), TURBO_FOUR(34, 43, 52, 61), TURBO_FOUR(71, 80, 90, 99), TURBO_FOUR(108, 118, 127, 127) },
};
alignas(64) constexpr constant static half turbo3_levels[2][16] = {
    { TURBO_FOUR(-93, -66, -49, -37), TURBO_EIGHT(4, 11, 19, 27), TURBO_FOUR(37, 49, 66, 93) },
    { TURBO_FOUR(-127, -127, -106, -84), TURBO_EIGHT(0, 19, 40, 62), TURBO_FOUR(84, 106, 127, 127) },
};
alignas(64) constexpr constant static half turbo2_levels[2][8] = {
    { TURBO_EIGHT(9, 28, 52, 94) },
    { TURBO_EIGHT(0, 64, 127, 127) },
};

// The codebook that a radius, as its bits, belongs to by its sign.
template <short RAW>
static inline constant const half * turbo_book(ushort radius) {
    const ushort book = radius >> 15;
    return RAW == 3 ? turbo4_levels[book] : RAW == 2 ? turbo3_levels[book] : turbo2_levels[book];
}

// Two 16-bit words as they lie, since a block is aligned to no more.
static inline uint turbo_load(device const ushort * words) {
    return as_type<uint>(ushort2(*(device const packed_ushort2 *) words));
}

// Bits 1 and 0 of the indices of four values, bit 1 where the window of a value begins and bit 0 above it. A window is six
// path bits in a byte, the value's own last, and values that follow each other may overlap.
static inline uint2 turbo_trellis(uint window) {
    const uint sum = window ^ window >> 2;
    return uint2(window ^ sum >> 3, sum ^ window >> 3);
}

// Four levels: of the values that have bit `bit` of the bytes of a plane and pair `pair` of the bytes of `pairs`, and whose
// windows begin at bit AT.
template <short RAW, short AT>
static inline half4 turbo_levels(constant const half * book, uint2 trellis, uint pairs, uint plane, ushort bit, ushort pair) {
    constexpr uint each = 0x01010101 << AT, top = RAW == 3 ? 4 : 2, count = (4 << RAW) - 1;
    uint index = (trellis.x & each) | (trellis.y & each << 1);
    if (RAW & 2) {
        index |= rotate(pairs, (AT + 2u - 2u * pair) % 32) & 12 * each;
    }
    if (RAW & 1) {
        index |= rotate(plane, (AT + top - bit) % 32) & each << top;
    }
    return half4(book[index >> AT & count], book[index >> (8 + AT) & count], book[index >> (16 + AT) & count],
                 book[index >> (24 + AT)]);
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
    const uint own = turbo_load(block->path + 2 * side);
    // What lies before in the trellis, from bit 31 down: the lowest bits of the radius, or the uppermost of the other side
    const uint last = turbo_load((device const ushort *) block + 2 * side) << (28 - 12 * side);
    device const ushort * qs = block->planes + (RAW == 3 ? 4 : 0) + 2 * (il & 3);
    const uint  pairs = RAW & 2 ? turbo_load(qs) : 0, plane = RAW & 1 ? turbo_load(block->planes + 2 * side) : 0;
    const half  d = block->d;
    // Nothing is missing where 32 bits would have to go: a window does not begin before bit 2
    const uint2 trellis = turbo_trellis(own << (7 - bit) | last >> min(25 + bit, 31));
    turbo_times(turbo_levels<RAW, 2>(turbo_book<RAW>(as_type<ushort>(d)), trellis, pairs, plane, bit, pair), d, reg);
}

template <short RAW, typename type4x4>
void dequantize_turbo(device const block_turbo<RAW> * block, short il, thread type4x4 & reg) {
    const half   d        = block->d;
    const ushort radius   = as_type<ushort>(d), bit = 2 * il;
    const uint   own[2]   = { turbo_load(block->path), turbo_load(block->path + 2) };
    const uint   plane[2] = { RAW & 1 ? turbo_load(block->planes) : 0, RAW & 1 ? turbo_load(block->planes + 2) : 0 };
    // Windows of two values together, from the sixth bit before the first
    const ushort behind = min(26 + bit, 31);
    const uint2 trellis[2] = { turbo_trellis(own[0] << (6 - bit) | uint(radius) << 28 >> behind),
                               turbo_trellis(own[1] << (6 - bit) | own[0] >> behind) };
    device const ushort * qs = block->planes + (RAW == 3 ? 4 : 0);
    constant const half * book = turbo_book<RAW>(radius);
    // An index that is not known would put the arrays into memory
    _Pragma("clang loop unroll(full)") for (short i = 0; i < 2; ++i) {
        const uint2 pairs = RAW & 2 ? uint2(turbo_load(qs + 2 * i), turbo_load(qs + 4 + 2 * i)) : uint2(0);
        turbo_times(turbo_levels<RAW, 1>(book, trellis[i], pairs.x, plane[i], bit, il), d, reg[i]);
        turbo_times(turbo_levels<RAW, 2>(book, trellis[i], pairs.y, plane[i], bit + 1, il), d, reg[i + 2]);
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
// Lane t has the values t and t + 32 of a block in the order of the trellis; on the way through it, lane s is state s. The
// ways into a state and errors come by shuffles, so a block needs no threadgroup memory and no barrier. What the reference
// has in tables is computed, every error once: for eight values at a time, lane 4 * i + s takes value i and subset s.

// For turbo2, turbo3 and turbo4; of the wide ones, eight for either codebook.
constexpr constant static short turbo_trials[3][4] = {
    { 106, 121, 139, 160 }, { 182, 195, 207, 221 }, { 211, 218, 226, 233 },
};
constexpr constant static short turbo_wide_trials[3][16] = {
    { 51, 63, 77, 93, 106, 121, 139, 160, 84, 132, 152, 159, 165, 178, 190, 203 },
    { 90, 104, 119, 136, 158, 182, 209, 241, 178, 218, 254, 274, 284, 295, 305, 318 },
    { 90, 103, 119, 137, 158, 181, 209, 241, 152, 198, 218, 234, 254, 264, 274, 284 },
};

// Level k of a codebook (0 or 1), in ascending order.
template <short RAW>
static inline int turbo_level(ushort book, ushort k) {
    return int(turbo_book<RAW>(book << 15)[(k & ~3) | (k & 1) << 1 | (k >> 1 & 1)] * 128);
}

// The levels of one subset in units.
template <short RAW>
static inline void turbo_subset_levels(ushort book, ushort subset, thread float * level) {
    _Pragma("clang loop unroll(full)") for (ushort k = 0; k < 1 << RAW; ++k) {
        level[k] = turbo_level<RAW>(book, 4 * k + subset) * (RAW == 1 ? 1 : 2);
    }
}

// The squared error of a value at y units to the nearest of them. Distances are small integers, which floats have exactly,
// and take the magnitude of without an operation.
template <short RAW>
static inline uint turbo_error(int y, thread const float * level) {
    float least = fabs(y - level[0]);
    _Pragma("clang loop unroll(full)") for (ushort k = 1; k < 1 << RAW; ++k) {
        least = min(least, fabs(y - level[k]));
    }
    return (uint(least * least) + 2) >> 2;
}

template <typename T>
static inline T turbo_scale(T v, int peak) {
    return ((v * peak >> 14) + 1) >> 1;
}

// Whether error a at peak pa is less than error b at peak pb, both in proportion to the block.
static inline bool turbo_less(uint a, uint pa, uint b, uint pb) {
    return ulong(a) * (pb * pb) < ulong(b) * (pa * pa);
}

// The subset of the codebook that the lane's state is reached through from the lower of the two states before it; from the
// upper one it is the subset whose number differs in bit 1.
static inline ushort turbo_subset(ushort lane) {
    return ((lane >> 1 ^ lane >> 2 ^ lane >> 4) & 1) | ((lane ^ lane >> 2) & 1) << 1;
}

// The best trial, and the most that 8 bits had to hold in it.
struct turbo_best { uint peak, book, error, worst; };

// Four trials on the way through the trellis, in 8 bits, or in 16 if WIDE. A trial has half of a word.
template <short RAW, bool WIDE>
static inline void turbo_try(int2 v, constant const short * peaks, ushort book, ushort lane, thread turbo_best & best) {
    const ushort shift  = WIDE ? 0 : RAW == 3 ? 2 : RAW == 2 ? 3 : 4;
    const ushort subset = turbo_subset(lane), other = subset ^ 2, lower = lane >> 1, upper = lower + 16;
    float level[1 << RAW];
    turbo_subset_levels<RAW>(book, lane & 3, level);
    ushort4 path = WIDE && lane >= 16 ? 0x7fff : 0, total = 0, worst = 0;  // as in turbo_turn
    for (ushort t = 0; t < 64; t += 8) {
        const int value = simd_shuffle(t < 32 ? v.x : v.y, t % 32 + lane / 4);
        ushort4 error;
        for (short trial = 0; trial < 4; ++trial) {
            const int y  = WIDE ? turbo_scale(value, peaks[trial]) : ((2 * (value >> 8) + 1) * peaks[trial] + 128) >> 8;
            error[trial] = min((turbo_error<RAW>(y, level) + (1 << shift >> 1)) >> shift, WIDE ? 0xffffu : 255u);
        }
        const uint2 errors = as_type<uint2>(error);
        for (ushort i = 0; i < 32; i += 4) {
            const uint2 a = simd_shuffle(as_type<uint2>(path), lower) + simd_shuffle(errors, i + subset);
            const uint2 b = simd_shuffle(as_type<uint2>(path), upper) + simd_shuffle(errors, i + other);
            path = min(as_type<ushort4>(a), as_type<ushort4>(b));
            path = WIDE ? min(path, ushort4(0x7fff)) : path;
        }
        // To cut metrics off at 8 bits after sixteen values is the same as after each of them
        if (!WIDE && (t & 8)) {
            path = min(path, ushort4(255));
            const ushort4 least = simd_min(path);
            path -= least;
            total += least;
            worst = max(worst, least);
        }
    }
    total = WIDE ? simd_min(path) : total;
    for (short i = 0; i < 4; ++i) {
        if (best.peak == 0 || turbo_less(total[i], peaks[i], best.error, best.peak)) {
            best = { uint(peaks[i]), book, total[i], worst[i] };
        }
    }
}

// The way through the trellis in 16 bits; the metric of the lane's state at the end. `came` keeps, for the lane's two
// values, into which states the better way came from the upper half of the states.
template <short RAW>
static inline uint turbo_turn(int2 y, ushort book, ushort lane, thread uint2 & came) {
    const ushort subset = turbo_subset(lane), other = subset ^ 2, lower = lane >> 1, upper = lower + 16;
    float level[1 << RAW];
    turbo_subset_levels<RAW>(book, lane & 3, level);
    uint metric = lane < 16 ? 0 : 0x7fff, kept = 0;  // the oldest bit before the path is zero
    for (ushort t = 0; t < 64; t += 8) {
        const uint errors = turbo_error<RAW>(simd_shuffle(t < 32 ? y.x : y.y, t % 32 + lane / 4), level);
        for (ushort i = 0; i < 8; ++i) {
            const uint a = min(simd_shuffle(metric, lower) + simd_shuffle(errors, 4 * i + subset), 0x7fffu);
            const uint b = min(simd_shuffle(metric, upper) + simd_shuffle(errors, 4 * i + other), 0x7fffu);
            const uint ways = uint((simd_vote::vote_t) simd_ballot(b < a));
            metric = min(a, b);
            kept   = t % 32 + i == lane ? ways : kept;
        }
        came.x = t < 32 ? kept : came.x;
    }
    came.y = kept;
    return metric;
}

// The path that ends in a state, and the bits before it. The upper five of `past` are the state, the first path bit below
// the later ones; those that go down are the path's.
static inline uint2 turbo_trace(uint2 came, ushort state, thread uint & past) {
    uint2 path;
    past = uint(state) << 27;
    for (short t = 63; t >= 0; --t) {
        past   = simd_shuffle(t < 32 ? came.x : came.y, t & 31) >> (past >> 27) << 31 | past >> 1;
        path.y = t == 37 ? reverse_bits(past) : path.y;
        path.x = t == 5 ? reverse_bits(past) : path.x;
    }
    past = reverse_bits(past) & 31;
    return path;
}

// FP16 of a positive number, rounded to nearest even; a device may take small ones for zero.
static inline ushort turbo_half_bits(float value) {
    const uint bits = as_type<uint>(value);
    return bits < 0x38800000 ? as_type<uint>(value + 0.5f) - 0x3f000000 : (bits + 0x0fff + (bits >> 13 & 1) - 0x38000000) >> 13;
}

template <short RAW>
static inline void quantize_turbo(device const float * src, device block_turbo<RAW> * dst, ushort lane) {
    const short first = 8 * (lane & 7) + (lane >> 3);  // the value that comes t-th; 32 later comes the fourth after it
    const float limit = 65504.0f / 128 * turbo_level<RAW>(0, (4 << RAW) - 1);

    // Magnitudes are in the order of their bits, and what is infinite or no number is sorted out before it is computed with
    const uint2 bits = uint2(as_type<uint>(src[first]), as_type<uint>(src[first + 4]));
    const uint2 size = min(select(bits & 0x7fffffff, uint2(0), (bits & 0x7fffffff) > 0x7f800000), uint2(as_type<uint>(limit)));
    const float peak = as_type<float>(simd_max(max(size.x, size.y)));

    uint2  path = 0, high = 0;
    ushort radius = 0;
    if (peak >= 0x1p-18f) {
        // Divisions are rounded as the reference's are, whatever the library is compiled for
        int2 v = int2(as_type<float2>(size | (bits & 0x80000000)) * precise::divide(32767.0f, peak));
        const int2 eighth = v >> 3;
        const uint square = simd_sum(uint(eighth.x * eighth.x + eighth.y * eighth.y));
        turbo_best best = { 0, 0, 0, 0 };
        if (square <= 5u << 26 && square >= 1u << 26) {
            turbo_try<RAW, false>(v, turbo_trials[RAW - 1], 0, lane, best);
        }
        if (best.peak == 0 || best.worst >= 128) {
            best.peak = 0;
            for (ushort i = 0; i < 4; ++i) {
                turbo_try<RAW, true>(i < 2 ? v : -v, turbo_wide_trials[RAW - 1] + 4 * i, i / 2, lane, best);
            }
        }
        v = best.book ? -v : v;
        uint2 came;
        const int2 y = turbo_scale(v, best.peak);
        const uint metric = turbo_turn<RAW>(y, best.book, lane, came);
        uint past;
        path = turbo_trace(came, simd_min(metric << 5 | lane) & 31, past);  // from the first of the best states

        // The nearest level of the subset that the path names
        const uint2 last = uint2(past << 27, path.x);
        const uint2 w1 = path << 1 | last >> 31, w2 = path << 2 | last >> 30, w4 = path << 4 | last >> 28,
                    w5 = path << 5 | last >> 27;
        const uint2 subset = ((w1 ^ w2 ^ w4) >> lane & 1) | ((path ^ w2 ^ w5) >> lane & 1) << 1;
        int2 level = int2(turbo_level<RAW>(best.book, subset.x), turbo_level<RAW>(best.book, subset.y));
        for (ushort k = 4; k < 4 << RAW; k += 4) {
            const int2 next = int2(turbo_level<RAW>(best.book, k + subset.x), turbo_level<RAW>(best.book, k + subset.y));
            const bool2 beyond = y > ((level + next) >> (RAW == 1 ? 1 : 0));
            level = select(level, next, beyond);
            high += uint2(beyond);
        }
        const int dot = simd_sum(v.x * level.x + v.y * level.y), energy = simd_sum(level.x * level.x + level.y * level.y);
        if (dot > 0) {
            const float value = precise::divide(float(dot), float(energy)) * precise::divide(peak, 32767.0f) * 128;
            // The nearest half that ends in the bits before the first value
            const int start = past >> 1, near = ((turbo_half_bits(min(value, 65504.0f)) - start + 8) & -16) + start;
            radius = near < 0 ? start : near < 0x7c00 ? near : near - 16;
        }
        path = radius ? path : uint2(0);
        high = radius ? high : uint2(0);
        radius |= radius ? best.book << 15 : 0;
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
