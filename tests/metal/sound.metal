// Kernels without a fault: what the harness must run, count and not complain about.
#include <metal_stdlib>
using namespace metal;

struct scale_args {
    int n;
    float scale;
};

constant int FC_row [[function_constant(40 + 2)]];
constant bool FC_twice [[function_constant(43)]];
constant float offsets[4] = {0.5f, 1.5f, 2.5f, 3.5f};

kernel void scale(
        constant scale_args & args,
        device const float4 * src,
        device float4 * dst,
        uint tpig [[thread_position_in_grid]]) {
    if ((int) tpig >= args.n) {
        return;
    }
    float4 v = src[tpig] * args.scale;
    if (is_function_constant_defined(FC_row)) {
        v += offsets[FC_row];
    }
    if (FC_twice) {
        v *= 2.h;
    }
    dst[tpig] = v;
}

// One 8x8 product for each simdgroup: d = a b + c, b taken transposed.
template <typename T, typename T8x8>
kernel void product(
        device const T * a [[buffer(0)]],
        device const T * b [[buffer(1)]],
        device float * d [[buffer(2)]],
        ushort sgitg [[simdgroup_index_in_threadgroup]]) {
    T8x8 ma, mb;
    simdgroup_float8x8 md = make_filled_simdgroup_matrix<float, 8>(1.0f);
    simdgroup_load(ma, a + 64*sgitg, 8);
    simdgroup_load(mb, b + 64*sgitg, 8, 0, true);
    simdgroup_multiply_accumulate(md, ma, mb, md);
    simdgroup_store(md, d + 64*sgitg, 8);
}

typedef decltype(product<float, simdgroup_float8x8>) product_t;
template [[host_name("product_f32")]] kernel product_t product<float, simdgroup_float8x8>;
template [[host_name("product_f16")]] kernel decltype(product<half, simdgroup_half8x8>) product<half, simdgroup_half8x8>;

// The sum of a row over several simdgroups, by a variable and by an argument in threadgroup memory.
kernel void row_sum(
        device const float * src,
        device float * dst,
        device atomic_int * groups,
        threadgroup float * partial [[threadgroup(0)]],
        uint tgpig [[threadgroup_position_in_grid]],
        ushort tiitg [[thread_index_in_threadgroup]],
        ushort tiisg [[thread_index_in_simdgroup]],
        ushort sgitg [[simdgroup_index_in_threadgroup]],
        ushort3 ntg [[threads_per_threadgroup]]) {
    threadgroup float counted[32];
    const float total = simd_sum(src[tgpig*ntg.x + tiitg]);
    if (tiisg == 0) {
        partial[sgitg] = total;
        counted[sgitg] = 1.0f;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (tiitg == 0) {
        float all = 0, n = 0;
        for (int i = 0; i < ntg.x/32; i++) {
            all += partial[i];
            n += counted[i];
        }
        dst[tgpig] = all/n;
        atomic_fetch_add_explicit(groups, 1, memory_order_relaxed);
    }
}

// Every exchange between lanes; each lane writes one row of answers.
kernel void exchanges(device const int * src, device int * dst, ushort lane [[thread_index_in_simdgroup]]) {
    const int x = src[lane];
    device int * out = dst + 16*lane;
    out[0] = simd_sum(x);
    out[1] = simd_max(x);
    out[2] = simd_min(x);
    out[3] = simd_prefix_inclusive_sum(x);
    out[4] = simd_prefix_exclusive_sum(x);
    out[5] = simd_shuffle(x, 31 - lane);
    out[6] = simd_shuffle_xor(x, 5);
    out[7] = simd_shuffle_down(x, 3);
    out[8] = simd_shuffle_up(x, 3);
    out[9] = simd_broadcast(x, 7);
    out[10] = (int) (uint) (ulong) simd_ballot(x % 2 == 0);
    out[11] = simd_all(x > 0);
    out[12] = simd_any(x == src[0]);
    out[13] = simd_and(x);
    out[14] = simd_or(x);
    out[15] = simd_xor(x);
}

// Only some lanes are here: the others have ended, and take no part.
kernel void some_lanes(device float * dst, ushort lane [[thread_index_in_simdgroup]]) {
    if (lane >= 10) {
        return;
    }
    dst[lane] = simd_sum(1.0f);
}

// What MSL adds to C++: vectors, swizzles, matrices, conversions, half, bit functions.
kernel void language(device float * dst, device const packed_float3 * packed, device const bfloat * brains) {
    float4 v = float4(1, 2, 3, 4);
    v.xy = v.yx;
    v.zw += float2(10.0f);
    dst[0] = v.x;
    dst[1] = v.y;
    dst[2] = v.wzyx.x;
    dst[3] = dot(v.xyz, float3(1.0f, 1.0f, 1.0f));
    half4 h = half4(v);
    h = h / 3.0h;
    dst[4] = h.x;
    const half big = 2048.0h;
    dst[5] = big + 1.0h;
    float2x4 m = float2x4(float4(1), float4(0, 1, 2, 3));
    dst[6] = m[1][2] + m[0][3];
    half2x4 hm = half2x4(m);
    dst[7] = (float) hm[1].w;
    dst[8] = as_type<float>(0x40490fdbu);
    dst[9] = popcount(0xf0f0u) + clz(1u) + ctz(8u);
    uchar4 bytes = as_type<uchar4>(0x04030201u);
    dst[10] = bytes.w*1000 + bytes.x;
    dst[11] = select(1.0f, 2.0f, any(bytes == uchar4(3)));
    dst[12] = clamp(-3.0f, -1.0f, 1.0f) + max(2, 3) + fmax(0.25f, NAN);
    int4 truncated = int4(float4(-1.7f, 1.7f, 2.5f, -0.2f));
    dst[13] = truncated.x*100 + truncated.y*10 + truncated.z;
    const float3 p = packed[1];
    dst[14] = p.x*100 + p.y*10 + p.z;
    dst[15] = (float) brains[1];
    dst[16] = 0.1 + 0.2;
    dst[17] = extract_bits(0x12345678u, 8, 8);
    dst[18] = (v > 2.0f).x ? 1.0f : 0.0f;
    dst[19] = rint(2.5f) + round(2.5f);
    const bfloat4 b4 = bfloat4(half4(1.0h, 2.0h, 1.00390625h, 4.0h)); // the third has a bit too many
    dst[20] = (float4(half4(b4))).z + (float) b4.w;
}

kernel void grid(
        device uint * dst,
        uint3 tpig [[thread_position_in_grid]],
        uint3 tgpg [[threadgroups_per_grid]],
        uint3 ntg [[threads_per_threadgroup]],
        uint3 tpg [[threads_per_grid]]) {
    dst[(tpig.z*tpg.y + tpig.y)*tpg.x + tpig.x] = tpig.x + 100*tpig.y + 10000*tpig.z + 1000000*(ntg.x*tgpg.x == tpg.x);
}
