// Arguments of our Metal kernels, as the host fills them in; this file is part of the Metal source, too. Strides are in
// bytes, counts in values, rows or positions.
#pragma once

// Numbers of the function constants
#define TURBO_FC_K        60000
#define TURBO_FC_V        60001
#define TURBO_FC_FEATURES 60002

// What a cache type is called in TURBO_FC_K and TURBO_FC_V. Our own types have the counts of their raw bits, from 1 to 6.
#define TURBO_KIND_F16  0
#define TURBO_KIND_Q8_0 8
#define TURBO_KIND_Q4_0 9
#define TURBO_KIND_BF16 10

// Bits of TURBO_FC_FEATURES
#define TURBO_HAS_MASK  1
#define TURBO_HAS_SINKS 2
#define TURBO_HAS_BIAS  4
#define TURBO_HAS_CAP   8
#define TURBO_V_IN_K    16  // V is the first part of every row of K

// Positions that a simdgroup, or a threadgroup, takes at a time
#define TURBO_TILE 32

struct turbo_attention_args {
    int32_t  queries, heads, group;     // of `heads`, `group` share a head of K and V
    int32_t  positions;
    int32_t  splits;                    // threadgroups that share the positions
    int32_t  kv_batches, batches;       // sequences of K and V, and of Q
    int32_t  mask_heads, mask_batches;
    int32_t  heads_log2;                // the power of two at or below `heads`
    float    scale, cap, m0, m1;        // m0, m1: ALiBi's bases of a slope
    uint64_t q1, q2, q3;                // of Q from a query, a head, a sequence to the next
    uint64_t k1, k2, k3, v1, v2, v3;    // of K and V from a position, a head, a sequence to the next
    uint64_t mask1, mask2, mask3;
};

struct turbo_join_args {
    int32_t queries, heads, width, splits;
};

struct turbo_rows_args {
    int32_t  blocks;                    // of a row
    int32_t  rows;                      // that are read or written, in each of the dimensions above
    int32_t  index1, index2;            // sizes of the index, which repeats where the rows have more
    uint64_t from1, from2, from3, i0, i1, i2, to1, to2, to3;
};

struct turbo_copy_args {
    int32_t  blocks;                    // of a row of the source
    int64_t  ne00, ne01, ne02, ne0, ne1, ne2;
    uint64_t nb00, nb01, nb02, nb03, nb0, nb1, nb2, nb3;
};
