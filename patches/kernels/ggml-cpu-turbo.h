// CPU side of the TurboQuant cache types: dot products with q8_0, the functions of ggml-turbo.h with vector instructions,
// and the entries of the CPU's table of traits.
#pragma once

#include "ggml-turbo.h"

#ifdef __cplusplus
extern "C" {
#endif

// For each type:
// - vec_dot: *s = the dot product of n values (a multiple of 64) of a turbo row at vx with a q8_0 row at vy. The strides
//   and nrc belong to the signature of ggml_vec_dot_t; only nrc == 1 is served.
// - the others: the functions of ggml-turbo.h, compiled for the CPU variant's instructions; bit for bit the same results.
#define TURBO_CPU_FUNCTIONS(ID, id, RAW)                                                               \
    void ggml_vec_dot_##id##_q8_0(                                                                     \
        int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, size_t by, int nrc); \
    void ggml_cpu_##id##_quantize_row(const float * x, void * y, int64_t k);                           \
    void ggml_cpu_##id##_levels_row(const void * x, int8_t * levels, float * scale, int64_t k);        \
    void ggml_cpu_##id##_dequantize_row(const void * x, float * y, int64_t k);
TURBO_TYPES(TURBO_CPU_FUNCTIONS)

#ifdef __cplusplus
}
#endif

// Entries for the table of struct ggml_type_traits_cpu.
#define GGML_TURBO_CPU_TRAITS_OF(ID, id, RAW)         \
    [GGML_TYPE_##ID] = {                              \
        .from_float   = ggml_cpu_##id##_quantize_row, \
        .vec_dot      = ggml_vec_dot_##id##_q8_0,     \
        .vec_dot_type = GGML_TYPE_Q8_0,               \
        .nrows        = 1,                            \
    },
#define GGML_TURBO_CPU_TRAITS TURBO_TYPES(GGML_TURBO_CPU_TRAITS_OF)
