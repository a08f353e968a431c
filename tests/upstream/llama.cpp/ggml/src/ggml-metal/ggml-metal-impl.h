// What the host hands to the kernels, and the first number of attention's function constants.
#pragma once

#define FC_FLASH_ATTN_EXT 100

// Queries that a threadgroup takes at once, and positions of the cache.
#define ATTENTION_QUERIES   8
#define ATTENTION_POSITIONS 8

// Names as in ggml: ne are sizes and nb strides in bytes, of the source (0 before the dimension), the row numbers (1) and
// the result. nk0 is how many pieces a row is dealt out in.
typedef struct {
    int32_t  ne00t;
    int32_t  ne10;
    uint64_t nb01;
    uint64_t nb1;
} ggml_metal_kargs_get_rows;

typedef struct {
    int32_t  nk0;
    int32_t  ne01;
    uint64_t nb01;
    uint64_t nb02;
    uint64_t nb03;
    int32_t  ne11;
    int32_t  ne12;
    uint64_t nb10;
    uint64_t nb11;
    uint64_t nb12;
    uint64_t nb1;
    uint64_t nb2;
    uint64_t nb3;
} ggml_metal_kargs_set_rows;

typedef struct {
    int64_t  nk0;
    int64_t  ne00;
    int64_t  ne01;
    int64_t  ne02;
    uint64_t nb00;
    uint64_t nb01;
    uint64_t nb02;
    uint64_t nb03;
    int64_t  ne0;
    int64_t  ne1;
    int64_t  ne2;
    uint64_t nb0;
    uint64_t nb1;
    uint64_t nb2;
    uint64_t nb3;
} ggml_metal_kargs_cpy;

typedef struct {
    int32_t  queries;
    int32_t  positions;
    int32_t  heads_per_kv;
    int32_t  heads;
    uint64_t nb01; // of the queries: from one to the next, and from head to head
    uint64_t nb02;
    uint64_t nb11; // of the keys
    uint64_t nb12;
    uint64_t nb21; // of the values
    uint64_t nb22;
    uint64_t nb31; // of the mask
    float    scale;
    float    softcap;
    float    slopes[2]; // bases of ALiBi's slopes, for the heads below a power of two and above
    int32_t  power;
} ggml_metal_kargs_attention;
