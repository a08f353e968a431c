// What the miniature needs of ggml: types and what is known of each, and matrices of them.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define GGML_API extern

// Say where and why, and end.
#define GGML_ABORT(...) \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), abort())
#define GGML_ASSERT(condition) ((condition) ? (void) 0 : GGML_ABORT("GGML_ASSERT(%s) failed", #condition))

#ifdef __cplusplus
extern "C" {
#endif

// The numbers are those of the GGUF format. Of Q2_K and I8 there is no more than the number, of BF16 no conversion.
enum ggml_type {
    GGML_TYPE_F32   = 0,
    GGML_TYPE_F16   = 1,
    GGML_TYPE_Q4_0  = 2,
    GGML_TYPE_Q8_0  = 8,
    GGML_TYPE_Q2_K  = 10,
    GGML_TYPE_I8    = 24,
    GGML_TYPE_I32   = 26,
    GGML_TYPE_I64   = 27,
    GGML_TYPE_BF16  = 30,
    GGML_TYPE_COUNT = 43,
};

// How exact a computation has to be; there is one way alone here.
enum ggml_prec { GGML_PREC_F32 };

// n is a number of values, of whole blocks.
typedef void (*ggml_to_float_t)(const void * from, float * to, int64_t n);
typedef void (*ggml_from_float_t)(const float * from, void * to, int64_t n);

// All zero for a type that there is not; without conversions for one of integers.
struct ggml_type_traits {
    const char *      type_name;
    int64_t           blck_size; // values of a block
    size_t            type_size; // bytes of a block
    bool              is_quantized;
    ggml_to_float_t   to_float;
    ggml_from_float_t from_float_ref; // what faster conversions are held against
};

// What a graph can compute.
enum ggml_op {
    GGML_OP_NONE,
    GGML_OP_RESHAPE, // the next four only look at their operand in another way
    GGML_OP_VIEW,
    GGML_OP_TRANSPOSE,
    GGML_OP_PERMUTE,
    GGML_OP_SET_ROWS,
    GGML_OP_CPY,
    GGML_OP_DUP,
    GGML_OP_GET_ROWS,
    GGML_OP_MUL_MAT,
    GGML_OP_FLASH_ATTN_EXT,
};

#define GGML_MAX_DIMS 4
#define GGML_MAX_SRC 5
#define GGML_MAX_OP_PARAMS 12 // bytes

// Values in memory that somebody else owns: ne[0] in a row, ne[1] rows and so on outwards, and for each of these how many
// bytes lie between one and the next.
struct ggml_tensor {
    enum ggml_type       type;
    enum ggml_op         op;           // what computes it
    int64_t              ne[GGML_MAX_DIMS];
    size_t               nb[GGML_MAX_DIMS];
    void *               data;
    struct ggml_tensor * src[GGML_MAX_SRC]; // operands of the operation that this is the result of
    float                limits[2];    // of clamp
    // of attention, the bits of floats: scale, largest bias, cap of the scores
    int32_t              op_params[GGML_MAX_OP_PARAMS / sizeof(int32_t)];
    struct ggml_tensor * view_src;     // whose memory this is a part of, from view_offs on; null: its own
    struct ggml_backend_buffer * buffer; // that memory; null: somebody else's
    size_t               view_offs;
};

// Ends the program for a number that is no type's.
GGML_API const struct ggml_type_traits * ggml_get_type_traits(enum ggml_type type);
GGML_API size_t                          ggml_type_size(enum ggml_type type);
GGML_API size_t                          ggml_row_size(enum ggml_type type, int64_t width);
GGML_API const char *                    ggml_type_name(enum ggml_type type);
GGML_API int64_t                         ggml_blck_size(enum ggml_type type);
GGML_API bool                            ggml_is_quantized(enum ggml_type type);

// The tensor whose rows follow each other without a gap.
GGML_API struct ggml_tensor ggml_rows(enum ggml_type type, int64_t width, int64_t rows, void * data);

// Converts nrows rows, from value `start` of src on, to where they belong in dst. Returns how many bytes that made.
GGML_API size_t ggml_quantize_chunk(enum ggml_type type, const float * src, void * dst, int64_t start, int64_t nrows,
                                    int64_t n_per_row, const float * imatrix);

// Whether these can be blocks of the type: whole ones, and nothing in them is infinite or NaN.
GGML_API bool ggml_validate_row_data(enum ggml_type type, const void * data, size_t nbytes);

// A context owns tensors, and a graph that computes the last one that it was expanded by. The sizes are of no account.
struct ggml_context;
struct ggml_cgraph;
struct ggml_init_params {
    size_t mem_size;
    void * mem_buffer;
    bool   no_alloc; // always
};
GGML_API struct ggml_context * ggml_init(struct ggml_init_params params);
GGML_API void                  ggml_free(struct ggml_context * ctx);
GGML_API size_t                ggml_tensor_overhead(void);
GGML_API size_t                ggml_graph_overhead(void);
GGML_API struct ggml_cgraph *  ggml_new_graph(struct ggml_context * ctx);
GGML_API void                  ggml_build_forward_expand(struct ggml_cgraph * graph, struct ggml_tensor * tensor);
GGML_API size_t                ggml_nbytes(const struct ggml_tensor * tensor);
GGML_API struct ggml_tensor *  ggml_graph_node(struct ggml_cgraph * graph, int number);

// New tensors; a third dimension, and a fourth, is more rows.
GGML_API struct ggml_tensor * ggml_new_tensor(struct ggml_context * ctx, enum ggml_type type, int n_dims, const int64_t * ne);
GGML_API struct ggml_tensor * ggml_new_tensor_2d(struct ggml_context * ctx, enum ggml_type type, int64_t width, int64_t rows);
GGML_API struct ggml_tensor * ggml_new_tensor_3d(
    struct ggml_context * ctx, enum ggml_type type, int64_t width, int64_t rows, int64_t heads);

// Operations. set_rows and cpy return a view of their destination.
GGML_API struct ggml_tensor * ggml_set_rows(
    struct ggml_context * ctx, struct ggml_tensor * to, struct ggml_tensor * from, struct ggml_tensor * numbers);
GGML_API struct ggml_tensor * ggml_cpy(struct ggml_context * ctx, struct ggml_tensor * from, struct ggml_tensor * to);
GGML_API struct ggml_tensor * ggml_get_rows(struct ggml_context * ctx, struct ggml_tensor * from, struct ggml_tensor * numbers);
GGML_API struct ggml_tensor * ggml_mul_mat(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
GGML_API struct ggml_tensor * ggml_flash_attn_ext(
    struct ggml_context * ctx, struct ggml_tensor * q, struct ggml_tensor * k, struct ggml_tensor * v,
    struct ggml_tensor * mask, float scale, float max_bias, float logit_softcap);

// Computed at once, into memory of the context: the values as floats, and sums and differences of floats.
GGML_API struct ggml_tensor * ggml_cast(struct ggml_context * ctx, struct ggml_tensor * from, enum ggml_type type);
GGML_API struct ggml_tensor * ggml_add(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
GGML_API struct ggml_tensor * ggml_sub(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);

// Products; b is repeated in its dimensions as often as it goes into a.
GGML_API struct ggml_tensor * ggml_mul(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);

// The same values in another shape, and without gaps.
GGML_API bool                 ggml_is_contiguous(const struct ggml_tensor * tensor);
GGML_API struct ggml_tensor * ggml_cont(struct ggml_context * ctx, struct ggml_tensor * a);
GGML_API struct ggml_tensor * ggml_reshape_3d(struct ggml_context * ctx, struct ggml_tensor * a, int64_t ne0, int64_t ne1, int64_t ne2);
GGML_API struct ggml_tensor * ggml_reshape_4d(
    struct ggml_context * ctx, struct ggml_tensor * a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3);

// Names are of no account.
GGML_API struct ggml_tensor * ggml_format_name(struct ggml_tensor * tensor, const char * format, ...);

#ifdef __cplusplus
}
#endif
