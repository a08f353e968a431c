// The TurboQuant cache types on Metal, and the types that may stand beside them in a cache: how their blocks are read.
// ggml-turbo.h has the formats. The host pastes ggml-turbo-types.h, this file, ggml-metal-turbo-encode.metal and
// ggml-metal-turbo-attention.metal into one source, which uses nothing of the backend's own kernels.

// A block of 64 values with RAW plainly stored bits for each: turbo5 has four, turbo4 three, turbo3 two, turbo2 one. A
// plane of single bits comes first if RAW is odd, then the pairs.
template <short RAW>
struct block_turbo {
    half   d;
    ushort path[4];
    ushort planes[4 * RAW];
};

#define TURBO_SIZE(ID, TYPE, BITS) static_assert(sizeof(block_turbo<BITS>) == 10 + 8 * BITS, "the block of ggml-turbo.h");
TURBO_TYPES(TURBO_SIZE)

// The codebooks of ggml-turbo-types.h, over 128, with bits 0 and 1 of the index exchanged, which saves an operation. As
// halves they need no conversion, and each lies in one line of 64 bytes (turbo5's in two), so that a load by 32 lanes
// touches a single line whatever they ask for.
#define TURBO_FOUR(a, b, c, d) half(a / 128.0f), half(c / 128.0f), half(b / 128.0f), half(d / 128.0f)
#define TURBO_EIGHT(a, b, c, d) TURBO_FOUR(-d, -c, -b, -a), TURBO_FOUR(a, b, c, d)
#define TURBO_8(a, b, c, d) { TURBO_EIGHT(a, b, c, d) }
#define TURBO_16(a, b, c, d, e, f, g, h) \
    { TURBO_FOUR(-h, -g, -f, -e), TURBO_EIGHT(a, b, c, d), TURBO_FOUR(e, f, g, h) }
#define TURBO_32(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)                                             \
    { TURBO_FOUR(-p, -o, -n, -m), TURBO_FOUR(-l, -k, -j, -i), TURBO_FOUR(-h, -g, -f, -e),                    \
      TURBO_EIGHT(a, b, c, d), TURBO_FOUR(e, f, g, h), TURBO_FOUR(i, j, k, l), TURBO_FOUR(m, n, o, p) }
#define TURBO_64(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, A, B, C, D, E, F)        \
    { TURBO_FOUR(-F, -E, -D, -C), TURBO_FOUR(-B, -A, -z, -y), TURBO_FOUR(-x, -w, -v, -u), TURBO_FOUR(-t, -s, -r, -q),   \
      TURBO_FOUR(-p, -o, -n, -m), TURBO_FOUR(-l, -k, -j, -i), TURBO_FOUR(-h, -g, -f, -e), TURBO_EIGHT(a, b, c, d),      \
      TURBO_FOUR(e, f, g, h), TURBO_FOUR(i, j, k, l), TURBO_FOUR(m, n, o, p), TURBO_FOUR(q, r, s, t),                   \
      TURBO_FOUR(u, v, w, x), TURBO_FOUR(y, z, A, B), TURBO_FOUR(C, D, E, F) }

#define TURBO_BOOKS(ID, TYPE, BITS) \
    alignas(64) constexpr constant static half TYPE##_levels[2][4 << BITS] = { ID##_LEVELS, ID##_LEVELS2 };
TURBO_TYPES(TURBO_BOOKS)

// The codebook that a radius, as its bits, belongs to by its sign.
template <short RAW>
static inline constant const half * turbo_book(ushort radius) {
    const ushort book = radius >> 15;
#define TURBO_BOOK(ID, TYPE, BITS) RAW == BITS ? TYPE##_levels[book] :
    return TURBO_TYPES(TURBO_BOOK) nullptr;
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
// windows begin at bit AT. What `plane` has is single bits, or where RAW is four a second word of pairs.
template <short RAW, short AT>
static inline half4 turbo_levels(constant const half * book, uint2 trellis, uint pairs, uint plane, ushort bit, ushort pair) {
    constexpr uint each = 0x01010101 << AT, top = RAW == 3 ? 4 : 2, count = (4 << RAW) - 1;
    uint index = (trellis.x & each) | (trellis.y & each << 1);
    if (RAW & 4) {
        index |= rotate(plane, (AT + 4u - 2u * pair) % 32) & 48 * each;
    }
    if (RAW & 6) {
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

// Eight values of a block: those that have bits `bit` and `bit` + 1 of half a plane. They are the values 4 * side + 0 to 3
// and 8 more of each, of the sixteen from 8 * bit on.
template <short RAW, typename type4>
static inline void turbo_eight(device const block_turbo<RAW> * block, ushort bit, ushort side, thread type4 & a, thread type4 & b) {
    const uint own = turbo_load(block->path + 2 * side);
    // What lies before in the trellis, from bit 31 down: the lowest bits of the radius, or the uppermost of the other side
    const uint last = turbo_load((device const ushort *) block + 2 * side) << (28 - 12 * side);
    device const ushort * qs = block->planes + (RAW == 3 ? 4 : 0) + 2 * side;
    const uint2 pairs = RAW & 6 ? uint2(turbo_load(qs), turbo_load(qs + 4)) : uint2(0);
    const uint2 plane = RAW & 4 ? uint2(turbo_load(qs + 8), turbo_load(qs + 12)) :
                        RAW & 1 ? uint2(turbo_load(block->planes + 2 * side)) : uint2(0);
    const half  d     = block->d;
    constant const half * book = turbo_book<RAW>(as_type<ushort>(d));
    // Windows of two values together, from the sixth bit before the first
    const uint2 trellis = turbo_trellis(own << (6 - bit) | last >> min(26 + bit, 31));
    turbo_times(turbo_levels<RAW, 1>(book, trellis, pairs.x, plane.x, bit, bit / 2), d, a);
    turbo_times(turbo_levels<RAW, 2>(book, trellis, pairs.y, plane.y, bit + 1, bit / 2), d, b);
}

// Unit `unit` of a row of turbo blocks: eight values, turbo_unit_at(unit) + 0 to 3 of the row as `a`, and eight more of
// each as `b`.
template <short RAW, typename type4>
static inline void turbo_unit(device const uchar * row, ushort unit, thread type4 & a, thread type4 & b) {
    turbo_eight((device const block_turbo<RAW> *) row + unit / 8, unit / 2 % 4 * 2, unit % 2, a, b);
}

static inline ushort turbo_unit_at(ushort unit) {
    return 16 * (unit / 2) + 4 * (unit % 2);
}

// A unit of a row of any type that a cache may have beside ours. Every kernel of attention reads rows in these units.
static inline void turbo_unit_of(short kind, device const uchar * row, ushort unit, thread half4 & a, thread half4 & b) {
#define TURBO_UNIT_CASE(ID, TYPE, BITS) case BITS: turbo_unit<BITS>(row, unit, a, b); break;
    const ushort piece = unit / 2, side = unit % 2;
    switch (kind) {
        TURBO_TYPES(TURBO_UNIT_CASE)
        case TURBO_KIND_Q8_0: {
            device const uchar * block = row + piece / 2 * 34;
            device const packed_char4 * values = (device const packed_char4 *) (block + 2) + piece % 2 * 4 + side;
            const half d = *(device const half *) block;
            a = half4(char4(values[0])) * d;
            b = half4(char4(values[2])) * d;
            break;
        }
        case TURBO_KIND_Q4_0: {
            device const uchar * block = row + piece / 2 * 18;
            device const ushort * nibbles = (device const ushort *) (block + 2) + 2 * side;
            const half d = *(device const half *) block;
            a = (half4(as_type<uchar4>(turbo_load(nibbles) >> 4 * (piece % 2) & 0x0f0f0f0f)) - half(8)) * d;
            b = (half4(as_type<uchar4>(turbo_load(nibbles + 4) >> 4 * (piece % 2) & 0x0f0f0f0f)) - half(8)) * d;
            break;
        }
        case TURBO_KIND_BF16: {
            device const ushort * values = (device const ushort *) row + turbo_unit_at(unit);
            const uint4 low  = uint4(ushort4(values[0], values[1], values[2], values[3])) << 16;
            const uint4 high = uint4(ushort4(values[8], values[9], values[10], values[11])) << 16;
            // What is beyond a half becomes its largest
            a = half4(clamp(as_type<float4>(low), float4(-65504.0f), float4(65504.0f)));
            b = half4(clamp(as_type<float4>(high), float4(-65504.0f), float4(65504.0f)));
            break;
        }
        default: {
            device const half4 * values = (device const half4 *) row + 4 * piece + side;
            a = values[0];
            b = values[2];
            break;
        }
    }
}

// -- rows and copies to floats: a thread for each unit ------------------------------------------------------------

template <short RAW, typename type4>
static inline void turbo_unit_to(device const uchar * row, ushort unit, device type4 * to) {
    type4 a, b;
    turbo_unit<RAW>(row, unit, a, b);
    to[0] = a;
    to[2] = b;
}

template <short RAW>
kernel void kernel_turbo_get_rows(
        constant turbo_rows_args & args,
        device const uchar * from,
        device const uchar * index,
        device       uchar * to,
        uint3  group   [[threadgroup_position_in_grid]],
        ushort thread_ [[thread_index_in_threadgroup]],
        ushort3 threads [[threads_per_threadgroup]]) {
    const int32_t row = *(device const int32_t *) (index + group.x * args.i0 + group.y * args.i1 + group.z * args.i2);
    from += row * args.from1 + group.y * args.from2 + group.z * args.from3;
    to   += group.x * args.to1 + group.y * args.to2 + group.z * args.to3;
    for (int32_t unit = thread_; unit < 8 * args.blocks; unit += threads.x) {
        turbo_unit_to<RAW>(from + unit / 8 * sizeof(block_turbo<RAW>), unit % 8, (device float4 *) to + 4 * (unit / 2) + unit % 2);
    }
}

// The result may have another shape, so that its place is worked out for every block.
template <short RAW, typename type4>
kernel void kernel_turbo_copy_from(
        constant turbo_copy_args & args,
        device const uchar * from,
        device       uchar * to,
        uint3  group   [[threadgroup_position_in_grid]],
        ushort thread_ [[thread_index_in_threadgroup]],
        ushort3 threads [[threads_per_threadgroup]]) {
    from += group.x * args.nb01 + group.y * args.nb02 + group.z * args.nb03;
    const int64_t first = ((group.z * args.ne02 + group.y) * args.ne01 + group.x) * args.ne00;
    for (int32_t unit = thread_; unit < 8 * args.blocks; unit += threads.x) {
        int64_t at = first + 64 * (unit / 8);
        const int64_t i0 = at % args.ne0;
        at /= args.ne0;
        device uchar * block = to + i0 * args.nb0 + at % args.ne1 * args.nb1 + at / args.ne1 % args.ne2 * args.nb2 +
                               at / args.ne1 / args.ne2 * args.nb3;
        turbo_unit_to<RAW>(from + unit / 8 * sizeof(block_turbo<RAW>), unit % 8,
                           (device type4 *) block + 4 * (unit % 8 / 2) + unit % 2);
    }
}

typedef decltype(kernel_turbo_get_rows<3>) turbo_get_rows_t;
typedef decltype(kernel_turbo_copy_from<3, float4>) turbo_copy_from_t;

#define TURBO_NAME(name) #name

#define TURBO_DECODERS(ID, TYPE, RAW)                                                              \
    template [[host_name(TURBO_NAME(kernel_turbo_get_rows_##TYPE))]]                               \
    kernel turbo_get_rows_t kernel_turbo_get_rows<RAW>;                                            \
    template [[host_name(TURBO_NAME(kernel_turbo_copy_##TYPE##_f32))]]                             \
    kernel turbo_copy_from_t kernel_turbo_copy_from<RAW, float4>;                                  \
    template [[host_name(TURBO_NAME(kernel_turbo_copy_##TYPE##_f16))]]                             \
    kernel turbo_copy_from_t kernel_turbo_copy_from<RAW, half4>;

TURBO_TYPES(TURBO_DECODERS)
