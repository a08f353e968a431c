// The kernels of the miniature's Metal backend: rows and copies of quantized types, and attention.
#include <metal_stdlib>

#if defined(GGML_METAL_EMBED_LIBRARY)
__embed_ggml-common.h__
#else
#include "ggml-common.h"
#endif
#include "ggml-metal-impl.h"

using namespace metal;

// -- decoders: 16 values (4x4) or 4 of a block, counted from its beginning ----------------------------------------

template <typename type4x4>
void dequantize_f16(device const half4x4 * block, short, thread type4x4 & values) {
    values = (type4x4) *block;
}

template <typename type4>
void dequantize_f16_t4(device const half4 * block, short, thread type4 & values) {
    values = (type4) *block;
}

template <typename type4x4>
void dequantize_q8_0(device const block_q8_0 * block, short at, thread type4x4 & values) {
    const float d = as_type<half>(block->d);
    for (short i = 0; i < 16; ++i) {
        values[i / 4][i % 4] = d * block->qs[16 * at + i];
    }
}

template <typename type4>
void dequantize_q8_0_t4(device const block_q8_0 * block, short at, thread type4 & values) {
    const float d = as_type<half>(block->d);
    for (short i = 0; i < 4; ++i) {
        values[i] = d * block->qs[4 * at + i];
    }
}

// -- attention ----------------------------------------------------------------------------------------------------

constant bool has_mask  [[function_constant(FC_FLASH_ATTN_EXT + 0)]];
constant bool has_sinks [[function_constant(FC_FLASH_ATTN_EXT + 1)]];
constant bool has_bias  [[function_constant(FC_FLASH_ATTN_EXT + 2)]];
constant bool has_cap   [[function_constant(FC_FLASH_ATTN_EXT + 3)]];
constant int  parts     [[function_constant(FC_FLASH_ATTN_EXT + 4)]];

static float score(constant ggml_metal_kargs_attention & args, float product, int head, int query, int position,
                   device const char * mask) {
    float s = product * args.scale;
    if (has_cap) {
        s = args.softcap * precise::tanh(s);
    }
    if (has_mask) {
        float slope = 1;
        if (has_bias) {
            slope = head < args.power ? pow(args.slopes[0], head + 1) : pow(args.slopes[1], 2 * (head - args.power) + 1);
        }
        s += slope * ((device const half *) (mask + query * args.nb31))[position];
    }
    return position < args.positions ? s : -INFINITY;
}

// A simdgroup multiplies 8 queries with 8 positions, of which it decodes 64 values at a time. Simdgroups of a threadgroup
// all do so, and share the columns of the result.
template <
    typename q_t, typename q4_t, typename q8x8_t, typename k_t, typename k4x4_t, typename k8x8_t, typename v_t,
    typename v4x4_t, typename v8x8_t, typename qk_t, typename qk8x8_t, typename s_t, typename s2_t, typename s8x8_t,
    typename o_t, typename o4_t, typename o8x8_t,
    typename kd4x4_t, short nl_k, void (*decode_k)(device const kd4x4_t *, short, thread k4x4_t &),
    typename vd4x4_t, short nl_v, void (*decode_v)(device const vd4x4_t *, short, thread v4x4_t &), short DK, short DV>
kernel void kernel_flash_attn_ext(
        constant ggml_metal_kargs_attention & args [[buffer(0)]],
        device const char * q     [[buffer(1)]],
        device const char * k     [[buffer(2)]],
        device const char * v     [[buffer(3)]],
        device const char * mask  [[buffer(4)]],
        device const char * sinks [[buffer(5)]],
        device       char * dst   [[buffer(6)]],
        threadgroup  half * memory [[threadgroup(0)]],
        uint3  group [[threadgroup_position_in_grid]],
        ushort lane  [[thread_index_in_simdgroup]],
        ushort simd  [[simdgroup_index_in_threadgroup]],
        ushort simds [[simdgroups_per_threadgroup]]) {
    threadgroup q_t * tq = (threadgroup q_t *) memory;
    threadgroup o_t * to = (threadgroup o_t *) (memory + ATTENTION_QUERIES * DK);
    threadgroup s_t * ts = (threadgroup s_t *) (to + ATTENTION_QUERIES * DV) + 64 * simd;
    threadgroup k_t * tk = (threadgroup k_t *) ((threadgroup s_t *) (to + ATTENTION_QUERIES * DV) + 64 * simds) + 512 * simd;
    threadgroup v_t * tv = (threadgroup v_t *) tk;

    const int head = group.y, first = group.x * ATTENTION_QUERIES;
    q += head * args.nb02;
    k += head / args.heads_per_kv * args.nb12;
    v += head / args.heads_per_kv * args.nb22;

    for (int i = lane + 32 * simd; i < ATTENTION_QUERIES * DK; i += 32 * simds) {
        const int query = first + i / DK;
        tq[i] = query < args.queries ? (q_t) ((device const float *) (q + query * args.nb01))[i % DK] : (q_t) 0;
    }
    for (int i = lane + 32 * simd; i < ATTENTION_QUERIES * DV; i += 32 * simds) {
        to[i] = 0;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    // Four lanes share a query, and a position or 16 values of one
    const short row = lane / 4, piece = lane % 4;
    const int   query = min(first + row, args.queries - 1);
    float highest = -FLT_MAX / 2, sum = 0;

    for (int p = 0; p < args.positions; p += ATTENTION_POSITIONS) {
        const int position = min(p + row, args.positions - 1);
        qk8x8_t products = make_filled_simdgroup_matrix<qk_t, 8>((qk_t) 0);
        for (short c = 0; c < DK / 64; ++c) {
            k4x4_t values;
            device const kd4x4_t * keys = (device const kd4x4_t *) (k + position * args.nb11);
            decode_k(keys + (4 * c + piece) / nl_k, (4 * c + piece) % nl_k, values);
            ((threadgroup k4x4_t *) tk)[lane] = values;
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (short j = 0; j < 8; ++j) {
                k8x8_t mk;
                q8x8_t mq;
                simdgroup_load(mk, tk + 8 * j, 64, 0, true);
                simdgroup_load(mq, tq + 64 * c + 8 * j, DK);
                simdgroup_multiply_accumulate(products, mq, mk, products);
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
        simdgroup_store(products, ts, 8);
        simdgroup_barrier(mem_flags::mem_threadgroup);

        float s[2], top = highest;
        for (short i = 0; i < 2; ++i) {
            const int at = p + 2 * piece + i;
            s[i] = score(args, ts[8 * row + 2 * piece + i], head, query, min(at, args.positions - 1), mask);
            s[i] = at < args.positions ? s[i] : -INFINITY;
            top = max(top, s[i]);
        }
        top = max(top, simd_shuffle_xor(top, 1));
        top = max(top, simd_shuffle_xor(top, 2));
        float weight = 0;
        for (short i = 0; i < 2; ++i) {
            const float e = exp(s[i] - top);
            ts[8 * row + 2 * piece + i] = e;
            weight += e;
        }
        weight += simd_shuffle_xor(weight, 1);
        weight += simd_shuffle_xor(weight, 2);
        const float before = exp(highest - top);
        sum = sum * before + weight;
        highest = top;

        for (short c = simd; c < DV / 64; c += simds) {
            for (short i = 0; i < 16; ++i) {
                to[row * DV + 64 * c + 16 * piece + i] *= before;
            }
            v4x4_t values;
            device const vd4x4_t * line = (device const vd4x4_t *) (v + position * args.nb21);
            decode_v(line + (4 * c + piece) / nl_v, (4 * c + piece) % nl_v, values);
            ((threadgroup v4x4_t *) tv)[lane] = values;
            simdgroup_barrier(mem_flags::mem_threadgroup);
            s8x8_t ms;
            simdgroup_load(ms, ts, 8);
            for (short j = 0; j < 8; ++j) {
                v8x8_t mv;
                o8x8_t mo;
                simdgroup_load(mv, tv + 8 * j, 64);
                simdgroup_load(mo, to + 64 * c + 8 * j, DV);
                simdgroup_multiply_accumulate(mo, ms, mv, mo);
                simdgroup_store(mo, to + 64 * c + 8 * j, DV);
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }

    float factor = 1;
    if (has_sinks) {
        const float sink = ((device const float *) sinks)[head], top = max(highest, sink);
        factor = exp(highest - top);
        sum = sum * factor + exp(sink - top);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (first + row < args.queries) {
        device float * out = (device float *) dst + ((first + row) * args.heads + head) * DV;
        for (short i = piece + 4 * simd; i < DV; i += 4 * simds) {
            out[i] = to[row * DV + i] * factor / sum;
        }
    }
}

// One query of one head: a simdgroup takes every parts-th position, its lanes four values each. With several parts, a result
// is what they have summed, and behind all of these what they would divide it by and their highest score.
template <
    typename q4_t, typename k4_t, typename v4_t, typename qk_t, typename s_t, typename s4_t, typename o4_t,
    typename kd4_t, short nl_k, void (*decode_k)(device const kd4_t *, short, thread k4_t &),
    typename vd4_t, short nl_v, void (*decode_v)(device const vd4_t *, short, thread v4_t &), short DK, short DV, short NE>
kernel void kernel_flash_attn_ext_vec(
        constant ggml_metal_kargs_attention & args [[buffer(0)]],
        device const char * q     [[buffer(1)]],
        device const char * k     [[buffer(2)]],
        device const char * v     [[buffer(3)]],
        device const char * mask  [[buffer(4)]],
        device const char * sinks [[buffer(5)]],
        device       char * dst   [[buffer(6)]],
        threadgroup  half * memory [[threadgroup(0)]],
        uint3  group [[threadgroup_position_in_grid]],
        ushort lane  [[thread_index_in_simdgroup]]) {
    const int query = group.x, head = group.y, part = group.z;
    threadgroup q4_t * tq = (threadgroup q4_t *) memory;
    k += head / args.heads_per_kv * args.nb12;
    v += head / args.heads_per_kv * args.nb22;
    for (short i = lane; i < DK / 4; i += 32) {
        tq[i] = (q4_t) ((device const float4 *) (q + query * args.nb01 + head * args.nb02))[i];
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);

    float highest = -FLT_MAX / 2, sum = 0;
    o4_t  o[(DV + 127) / 128];
    for (short i = 0; i < (DV + 127) / 128; ++i) {
        o[i] = 0;
    }
    for (int position = part; position < args.positions; position += parts) {
        device const kd4_t * keys = (device const kd4_t *) (k + position * args.nb11);
        qk_t product = 0;
        for (short i = lane; i < DK / 4; i += 32) {
            k4_t values;
            decode_k(keys + i / nl_k, i % nl_k, values);
            product += dot((float4) values, (float4) tq[i]);
        }
        const s_t   s    = score(args, simd_sum(product), head, query, position, mask);
        const float top  = max(highest, s), before = exp(highest - top), now = exp(s - top);
        sum     = sum * before + now;
        highest = top;
        device const vd4_t * line = (device const vd4_t *) (v + position * args.nb21);
        for (short i = 0; i < (DV + 127) / 128; ++i) {
            if (32 * i + lane < DV / 4) {
                v4_t values;
                decode_v(line + (32 * i + lane) / nl_v, (32 * i + lane) % nl_v, values);
                o[i] = o[i] * before + (o4_t) values * now;
            }
        }
    }
    if (has_sinks && part == 0) {
        const float sink = ((device const float *) sinks)[head], top = max(highest, sink), before = exp(highest - top);
        sum     = sum * before + exp(sink - top);
        highest = top;
        for (short i = 0; i < (DV + 127) / 128; ++i) {
            o[i] *= before;
        }
    }
    const int row = query * args.heads + head, rows = args.queries * args.heads;
    device float4 * out = (device float4 *) dst + (row * parts + part) * (DV / 4);
    for (short i = 0; i < (DV + 127) / 128; ++i) {
        if (32 * i + lane < DV / 4) {
            out[32 * i + lane] = parts == 1 ? o[i] / sum : o[i];
        }
    }
    if (parts > 1 && lane == 0) {
        device float2 * ends = (device float2 *) ((device float *) dst + rows * parts * DV);
        ends[row * parts + part] = float2(sum, highest);
    }
}

kernel void kernel_flash_attn_ext_vec_reduce(
        constant int & rows       [[buffer(0)]],
        constant int & width      [[buffer(1)]],
        device const float * from [[buffer(2)]],
        device       float * dst  [[buffer(3)]],
        uint   row     [[threadgroup_position_in_grid]],
        ushort thread_ [[thread_index_in_threadgroup]],
        ushort threads [[threads_per_threadgroup]]) {
    device const float2 * ends = (device const float2 *) (from + rows * parts * width) + row * parts;
    float top = -FLT_MAX / 2, sum = 0;
    for (int part = 0; part < parts; ++part) {
        top = max(top, ends[part].y);
    }
    for (int part = 0; part < parts; ++part) {
        sum += ends[part].x * exp(ends[part].y - top);
    }
    for (int i = thread_; i < width; i += threads) {
        float value = 0;
        for (int part = 0; part < parts; ++part) {
            value += from[(row * parts + part) * width + i] * exp(ends[part].y - top);
        }
        dst[row * width + i] = value / sum;
    }
}

#define MANY half, half4, simdgroup_half8x8, half, half4x4, simdgroup_half8x8, half, half4x4, simdgroup_half8x8, float, \
    simdgroup_float8x8, float, float2, simdgroup_float8x8, float, float4, simdgroup_float8x8
#define ONE half4, half4, half4, float, float, float4, float4

typedef decltype(kernel_flash_attn_ext<MANY, half4x4, 1, dequantize_f16, half4x4, 1, dequantize_f16, 64, 64>) flash_attn_ext_t;
typedef decltype(kernel_flash_attn_ext_vec<ONE, half4, 1, dequantize_f16_t4, half4, 1, dequantize_f16_t4, 64, 64, 2>) flash_attn_ext_vec_t;

#define NAME(whole) #whole
#define ATTENTION(name, block, block4, nl, nl4, DK, DV)                                                              \
    template [[host_name(NAME(kernel_flash_attn_ext_##name##_dk##DK##_dv##DV))]] kernel flash_attn_ext_t             \
    kernel_flash_attn_ext<MANY, block, nl, dequantize_##name, block, nl, dequantize_##name, DK, DV>;                 \
    template [[host_name(NAME(kernel_flash_attn_ext_vec_##name##_dk##DK##_dv##DV))]] kernel flash_attn_ext_vec_t     \
    kernel_flash_attn_ext_vec<ONE, block4, nl4, dequantize_##name##_t4, block4, nl4, dequantize_##name##_t4, DK, DV, 2>;

ATTENTION(f16, half4x4, half4, 1, 1, 64, 64)
ATTENTION(f16, half4x4, half4, 1, 1, 128, 128)
ATTENTION(f16, half4x4, half4, 1, 1, 512, 512)
ATTENTION(q8_0, block_q8_0, block_q8_0, 2, 8, 64, 64)
ATTENTION(q8_0, block_q8_0, block_q8_0, 2, 8, 128, 128)

// -- copies and rows ----------------------------------------------------------------------------------------------

// Where the row begins in the result that i01, i02 and i03 of the source name, both counted value by value.
static uint64_t copied_row(constant ggml_metal_kargs_cpy & args, int64_t i01, int64_t i02, int64_t i03, int block) {
    int64_t n = ((i03 * args.ne02 + i02) * args.ne01 + i01) * args.ne00;
    const int64_t i0 = n % args.ne0;
    n /= args.ne0;
    const int64_t i1 = n % args.ne1;
    n /= args.ne1;
    return n / args.ne2 * args.nb3 + n % args.ne2 * args.nb2 + i1 * args.nb1 + i0 / block * args.nb0;
}

template <typename type4x4, typename block, short nl, void (*decode)(device const block *, short, thread type4x4 &)>
kernel void kernel_cpy_q_f32(
        constant ggml_metal_kargs_cpy & args [[buffer(0)]],
        device const char * src [[buffer(1)]],
        device       char * dst [[buffer(2)]],
        uint3   group   [[threadgroup_position_in_grid]],
        ushort3 thread_ [[thread_position_in_threadgroup]],
        ushort3 threads [[threads_per_threadgroup]]) {
    const int64_t i01 = group.x % args.ne01, piece = group.x / args.ne01 * threads.x + thread_.x;
    if (piece < args.nk0) {
        type4x4 values;
        device const block * from = (device const block *) (src + i01 * args.nb01 + group.y * args.nb02 + group.z * args.nb03);
        decode(from + piece / nl, piece % nl, values);
        ((device type4x4 *) (dst + copied_row(args, i01, group.y, group.z, 1)))[piece] = values;
    }
}

template <typename block, short nl, void (*decode)(device const block *, short, thread float4x4 &)>
kernel void kernel_get_rows_q(
        constant ggml_metal_kargs_get_rows & args [[buffer(0)]],
        device const void * src     [[buffer(1)]],
        device const void * numbers [[buffer(2)]],
        device       void * dst     [[buffer(3)]],
        uint3   group   [[threadgroup_position_in_grid]],
        ushort  thread_ [[thread_index_in_threadgroup]],
        ushort3 threads [[threads_per_threadgroup]]) {
    const int at = group.x % args.ne10, piece = group.x / args.ne10 * threads.x + thread_;
    const int row = ((device const int32_t *) numbers)[at];
    if (piece < args.ne00t) {
        float4x4 values;
        decode((device const block *) ((device const char *) src + row * args.nb01) + piece / nl, piece % nl, values);
        ((device float4x4 *) ((device char *) dst + at * args.nb1))[piece] = values;
    }
}

// A thread for each value, and as many rows in a threadgroup as there is room for.
template <typename number>
kernel void kernel_set_rows_f32(
        constant ggml_metal_kargs_set_rows & args [[buffer(0)]],
        device const char * src     [[buffer(1)]],
        device const char * numbers [[buffer(2)]],
        device       char * dst     [[buffer(3)]],
        uint3   group   [[threadgroup_position_in_grid]],
        ushort3 thread_ [[thread_position_in_threadgroup]],
        ushort3 threads [[threads_per_threadgroup]]) {
    const int i01 = group.x * threads.y + thread_.y, i02 = group.y, i03 = group.z;
    if (i01 < args.ne01) {
        const uint64_t to = *(device const number *) (numbers + i01 * args.nb10 + i02 % args.ne11 * args.nb11 + i03 % args.ne12 * args.nb12);
        device const float * from = (device const float *) (src + i01 * args.nb01 + i02 * args.nb02 + i03 * args.nb03);
        device       float * row  = (device float *) (dst + to * args.nb1 + i02 * args.nb2 + i03 * args.nb3);
        for (int i = thread_.x; i < args.nk0; i += threads.x) {
            row[i] = from[i];
        }
    }
}

typedef decltype(kernel_cpy_q_f32<float4x4, block_q8_0, 2, dequantize_q8_0>) cpy_q_f_t;
typedef decltype(kernel_get_rows_q<block_q8_0, 2, dequantize_q8_0>) get_rows_q_t;

template [[host_name("kernel_cpy_q8_0_f32")]]  kernel cpy_q_f_t kernel_cpy_q_f32<float4x4, block_q8_0, 2, dequantize_q8_0>;
template [[host_name("kernel_get_rows_q8_0")]] kernel get_rows_q_t kernel_get_rows_q<block_q8_0, 2, dequantize_q8_0>;
template [[host_name("kernel_set_rows_f32_i64_f32")]] kernel decltype(kernel_set_rows_f32<int64_t>) kernel_set_rows_f32<int64_t>;
template [[host_name("kernel_set_rows_f32_i32_f32")]] kernel decltype(kernel_set_rows_f32<int32_t>) kernel_set_rows_f32<int32_t>;
