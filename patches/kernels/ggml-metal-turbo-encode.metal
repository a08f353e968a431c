// The encoder of the TurboQuant cache types on Metal: ggml-turbo-encode.h on a simdgroup, with the same result bit for bit.
//
// Lane t has the values t and t + 32 of a block in the order of the trellis; on the way through it, lane s is state s. The
// ways into a state and errors come by shuffles, so a block needs no threadgroup memory and no barrier. What the reference
// has in tables is computed, every error once: for eight values at a time, lane 4 * i + s takes value i and subset s.

// Where a type's trials stand, of the wide ones eight for either codebook; the units of a level, and the shift of errors in
// 8 bits.
#define TURBO_TRIALS(ID, TYPE, BITS)                                          \
    constexpr constant static short TYPE##_trials[4] = { ID##_TRIALS };       \
    constexpr constant static short TYPE##_wide_trials[16] = { ID##_WIDE, ID##_WIDE2 };
TURBO_TYPES(TURBO_TRIALS)

template <short RAW>
static inline constant const short * turbo_trials(bool wide) {
#define TURBO_TRIALS_OF(ID, TYPE, BITS) RAW == BITS ? (wide ? TYPE##_wide_trials : TYPE##_trials) :
    return TURBO_TYPES(TURBO_TRIALS_OF) nullptr;
}

template <short RAW>
static inline short turbo_units() {
#define TURBO_UNITS(ID, TYPE, BITS) RAW == BITS ? ID##_UNIT :
    return TURBO_TYPES(TURBO_UNITS) 0;
}

template <short RAW>
static inline short turbo_shift() {
#define TURBO_SHIFTS(ID, TYPE, BITS) RAW == BITS ? ID##_SHIFT :
    return TURBO_TYPES(TURBO_SHIFTS) 0;
}

// Level k of a codebook (0 or 1), in ascending order.
template <short RAW>
static inline int turbo_level(ushort book, ushort k) {
    return int(turbo_book<RAW>(book << 15)[(k & ~3) | (k & 1) << 1 | (k >> 1 & 1)] * 128);
}

// The levels of one subset in units.
template <short RAW>
static inline void turbo_subset_levels(ushort book, ushort subset, thread float * level) {
    _Pragma("clang loop unroll(full)") for (ushort k = 0; k < 1 << RAW; ++k) {
        level[k] = turbo_level<RAW>(book, 4 * k + subset) * turbo_units<RAW>();
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
    const ushort shift  = WIDE ? 0 : turbo_shift<RAW>();
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
    if (peak >= 3.814697265625e-6f) {
        // Divisions are rounded as the reference's are, whatever the library is compiled for
        int2 v = int2(as_type<float2>(size | (bits & 0x80000000)) * precise::divide(32767.0f, peak));
        const int2 eighth = v >> 3;
        const uint square = simd_sum(uint(eighth.x * eighth.x + eighth.y * eighth.y));
        turbo_best best = { 0, 0, 0, 0 };
        if (square <= 5u << 26 && square >= 1u << 26) {
            turbo_try<RAW, false>(v, turbo_trials<RAW>(false), 0, lane, best);
        }
        if (best.peak == 0 || best.worst >= 128) {
            best.peak = 0;
            for (ushort i = 0; i < 4; ++i) {
                turbo_try<RAW, true>(i < 2 ? v : -v, turbo_trials<RAW>(true) + 4 * i, i / 2, lane, best);
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
            const bool2 beyond = y > ((level + next) >> (2 - turbo_units<RAW>()));
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
    for (short more = 0; more < RAW / 2; ++more) {
        const uint pairs = (high.x >> 2 * more & 3) | (high.y >> 2 * more & 3) << 8;
        uint byte = 0;
        for (short i = 0; i < 4; ++i) {
            const ushort t = 8 * (lane & 7) + (lane >> 3 & 1) + 2 * i;  // of value lane + 16 * i
            byte |= (simd_shuffle(pairs, t & 31) >> (t & 32) / 4 & 3) << 2 * i;
        }
        if (lane < 16) {
            out[(RAW == 3 ? 18 : 10) + 16 * more + lane] = byte;
        }
    }
}

// Rows: a threadgroup for each, a simdgroup for a block
template <typename TI, short RAW>
kernel void kernel_turbo_set_rows(
        constant turbo_rows_args & args,
        device const uchar * from,
        device const uchar * index,
        device       uchar * to,
        uint3  group [[threadgroup_position_in_grid]],
        ushort lane  [[thread_index_in_simdgroup]],
        ushort simd  [[simdgroup_index_in_threadgroup]],
        ushort simds [[simdgroups_per_threadgroup]]) {
    const TI row = *(device const TI *) (index + group.x * args.i0 + group.y % args.index1 * args.i1 + group.z % args.index2 * args.i2);
    device const float * values = (device const float *) (from + group.x * args.from1 + group.y * args.from2 + group.z * args.from3);
    device block_turbo<RAW> * blocks =
        (device block_turbo<RAW> *) (to + row * args.to1 + group.y * args.to2 + group.z * args.to3);
    for (int32_t i = simd; i < args.blocks; i += simds) {
        quantize_turbo(values + 64 * i, blocks + i, lane);
    }
}

// Copies: the place in the result is worked out block by block, as its shape may be another
template <short RAW>
kernel void kernel_turbo_copy_to(
        constant turbo_copy_args & args,
        device const uchar * from,
        device       uchar * to,
        uint3  group [[threadgroup_position_in_grid]],
        ushort lane  [[thread_index_in_simdgroup]],
        ushort simd  [[simdgroup_index_in_threadgroup]],
        ushort simds [[simdgroups_per_threadgroup]]) {
    device const float * values = (device const float *) (from + group.x * args.nb01 + group.y * args.nb02 + group.z * args.nb03);
    const int64_t first = ((group.z * args.ne02 + group.y) * args.ne01 + group.x) * args.ne00;
    for (int32_t i = simd; i < args.blocks; i += simds) {
        int64_t at = first + 64 * i;
        const int64_t i0 = at % args.ne0;
        at /= args.ne0;
        device uchar * block = to + i0 / 64 * args.nb0 + at % args.ne1 * args.nb1 + at / args.ne1 % args.ne2 * args.nb2 +
                               at / args.ne1 / args.ne2 * args.nb3;
        quantize_turbo(values + 64 * i, (device block_turbo<RAW> *) block, lane);
    }
}

typedef decltype(kernel_turbo_set_rows<int64_t, 3>) turbo_set_rows_t;
typedef decltype(kernel_turbo_copy_to<3>) turbo_copy_to_t;

#define TURBO_ENCODERS(ID, TYPE, RAW)                                                              \
    template [[host_name(TURBO_NAME(kernel_turbo_set_rows_i64_##TYPE))]]                           \
    kernel turbo_set_rows_t kernel_turbo_set_rows<int64_t, RAW>;                                   \
    template [[host_name(TURBO_NAME(kernel_turbo_set_rows_i32_##TYPE))]]                           \
    kernel turbo_set_rows_t kernel_turbo_set_rows<int32_t, RAW>;                                   \
    template [[host_name(TURBO_NAME(kernel_turbo_copy_f32_##TYPE))]]                               \
    kernel turbo_copy_to_t kernel_turbo_copy_to<RAW>;

TURBO_TYPES(TURBO_ENCODERS)
