// The part of ggml's interface that the miniature needs: types, their traits, and plain tensors.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define GGML_API extern
#ifdef __cplusplus
#    define GGML_RESTRICT __restrict
#else
#    define GGML_RESTRICT restrict
#endif

#define GGML_MAX_DIMS 4
#define GGML_MAX_SRC 2
#define GGML_MAX_OP_PARAMS 64
#define GGML_UNUSED(x) (void) (x)
#define GGML_ABORT(...) \
    do { \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__); \
        fputc('\n', stderr); \
        abort(); \
    } while (0)
#define GGML_ASSERT(x) \
    do { \
        if (!(x)) GGML_ABORT("GGML_ASSERT(%s) failed", #x); \
    } while (0)

#ifdef __cplusplus
extern "C" {
#endif

    typedef uint16_t ggml_fp16_t;

    // The numbers are those of the GGUF format; the miniature has traits for F32, F16, Q4_0, Q8_0 and I32.
    enum ggml_type {
        GGML_TYPE_F32     = 0,
        GGML_TYPE_F16     = 1,
        GGML_TYPE_Q4_0    = 2,
        GGML_TYPE_Q8_0    = 8,
        GGML_TYPE_Q2_K    = 10,
        GGML_TYPE_I8      = 24,
        GGML_TYPE_I32     = 26,
        GGML_TYPE_COUNT   = 43,
    };

    enum ggml_prec {
        GGML_PREC_DEFAULT = 0,
        GGML_PREC_F32     = 10,
    };

    typedef void (*ggml_to_float_t)  (const void  * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);
    typedef void (*ggml_from_float_t)(const float * GGML_RESTRICT x, void  * GGML_RESTRICT y, int64_t k);

    struct ggml_type_traits {
        const char        * type_name;
        int64_t             blck_size;
        int64_t             blck_size_interleave;
        size_t              type_size;
        bool                is_quantized;
        ggml_to_float_t     to_float;
        ggml_from_float_t   from_float_ref;
    };

    struct ggml_tensor {
        enum ggml_type       type;
        int64_t              ne[GGML_MAX_DIMS]; // elements in each dimension, the fastest first
        size_t               nb[GGML_MAX_DIMS]; // bytes from one to the next in each dimension
        int32_t              op_params[GGML_MAX_OP_PARAMS / sizeof(int32_t)];
        struct ggml_tensor * src[GGML_MAX_SRC];
        void               * data;
    };

    GGML_API const struct ggml_type_traits * ggml_get_type_traits(enum ggml_type type);

    GGML_API const char * ggml_type_name   (enum ggml_type type);
    GGML_API int64_t      ggml_blck_size   (enum ggml_type type);
    GGML_API size_t       ggml_type_size   (enum ggml_type type);
    GGML_API size_t       ggml_row_size    (enum ggml_type type, int64_t ne);
    GGML_API bool         ggml_is_quantized(enum ggml_type type);

    // A 2D view of memory that the caller owns, rows packed.
    GGML_API struct ggml_tensor ggml_view_of(enum ggml_type type, int64_t ne0, int64_t ne1, void * data);

    // Rows of n_per_row floats to rows of `type`; returns the bytes written.
    GGML_API size_t ggml_quantize_chunk(
            enum ggml_type type, const float * src, void * dst,
            int64_t start, int64_t nrows, int64_t n_per_row, const float * imatrix);

    GGML_API bool ggml_validate_row_data(enum ggml_type type, const void * data, size_t nbytes);

#ifdef __cplusplus
}
#endif
