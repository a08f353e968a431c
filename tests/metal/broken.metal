// Kernels with one fault each, which the harness must name.
#include <metal_stdlib>
using namespace metal;

kernel void missing_barrier(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        ushort i [[thread_index_in_threadgroup]]) {
    shared[i] = i;
    dst[i] = shared[63 - i]; // reads what another simdgroup writes
}

kernel void missing_simdgroup_barrier(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        ushort i [[thread_index_in_threadgroup]]) {
    shared[i] = i;
    dst[i] = shared[i ^ 1]; // reads what its neighbour writes
}

kernel void barrier_without_fence(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        ushort i [[thread_index_in_threadgroup]]) {
    shared[i] = i;
    threadgroup_barrier(mem_flags::mem_none);
    dst[i] = shared[63 - i]; // the barrier orders nothing
}

kernel void both_write(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        ushort i [[thread_index_in_threadgroup]]) {
    shared[i / 2] = i; // two threads, two values
    threadgroup_barrier(mem_flags::mem_threadgroup);
    dst[i] = shared[i / 2];
}

kernel void same_value(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        ushort i [[thread_index_in_threadgroup]]) {
    shared[0] = 5.0f; // no fault: all write the same
    threadgroup_barrier(mem_flags::mem_threadgroup);
    dst[i] = shared[0];
}

kernel void in_step(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        ushort i [[thread_index_in_simdgroup]]) {
    shared[i] = i;
    simdgroup_barrier(mem_flags::mem_threadgroup);
    const float x = shared[31 - i];
    shared[i] = -x; // after a read by another lane of the same simdgroup
    simdgroup_barrier(mem_flags::mem_threadgroup);
    dst[i] = shared[i];
}

kernel void wrong_stride(
        device const float * src,
        device float * dst,
        uint i [[thread_position_in_grid]]) {
    dst[i] = src[i*3]; // should be 2
}

kernel void write_before(device float * dst, uint i [[thread_position_in_grid]]) {
    dst[(int) i - 1] = 1.0f; // one too low
}

kernel void shared_overrun(
        device float * dst,
        threadgroup float * shared [[threadgroup(0)]],
        threadgroup float * other [[threadgroup(1)]],
        ushort i [[thread_index_in_threadgroup]]) {
    shared[i + 1] = i; // the last thread writes past the end
    other[i] = i;
    dst[i] = other[i];
}

kernel void never_written(
        device float * dst,
        ushort i [[thread_index_in_threadgroup]]) {
    threadgroup float table[64];
    if (i % 2 == 0) {
        table[i] = i;
    }
    dst[i] = table[i]; // half of it was never written
}

kernel void divergence(
        device float * dst,
        ushort i [[thread_index_in_simdgroup]]) {
    if (i < 12) {
        dst[i] = simd_sum(1.0f); // some lanes are here
    } else {
        dst[i] = simd_max((float) i); // the others here
    }
}

kernel void partial_matrix(
        device float * dst,
        ushort i [[thread_index_in_simdgroup]]) {
    if (i >= 30) {
        return;
    }
    simdgroup_float8x8 m;
    simdgroup_load(m, dst, 8); // two lanes are missing
    simdgroup_store(m, dst, 8);
}

kernel void barrier_not_met(
        device float * dst,
        ushort i [[thread_index_in_threadgroup]]) {
    if (i >= 40) {
        return;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup); // 40 to 63 never come
    dst[i] = 1.0f;
}

kernel void two_barriers(
        device float * dst,
        ushort i [[thread_index_in_threadgroup]]) {
    if (i < 32) {
        threadgroup_barrier(mem_flags::mem_threadgroup); // one simdgroup is here
        dst[i] = 1.0f;
    } else {
        threadgroup_barrier(mem_flags::mem_threadgroup); // the other here
        dst[i] = 2.0f;
    }
}

kernel void endless(device atomic_int * flag, ushort i [[thread_index_in_threadgroup]]) {
    while (atomic_load_explicit(flag, memory_order_relaxed) == 0) { // nobody sets it
    }
}

kernel void by_zero(device int * dst, uint i [[thread_position_in_grid]]) {
    dst[i] = 7/dst[i]; // divides by what is zero
}

kernel void far_away(device float * dst, uint i [[thread_position_in_grid]]) {
    dst[1ul << 45] = 1.0f; // not within reach of any buffer
}

