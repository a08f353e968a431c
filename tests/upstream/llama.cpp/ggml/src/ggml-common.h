// Block layouts of the quantized types.
#ifndef GGML_COMMON_DECL

#if defined(GGML_COMMON_DECL_C)
#include <stdint.h>
typedef uint16_t ggml_half;
#define GGML_COMMON_DECL
#elif defined(GGML_COMMON_DECL_CPP)
#include <cstdint>
typedef uint16_t ggml_half;
#define GGML_COMMON_DECL
#endif

#if defined(GGML_COMMON_DECL)

#ifndef __cplusplus
#ifndef static_assert
#define static_assert(cond, msg) _Static_assert(cond, msg)
#endif
#endif

#define QK4_0 32
typedef struct {
    ggml_half d;             // scale
    uint8_t   qs[QK4_0 / 2]; // 8 + value / scale; value j is nibble j / 16 of byte j % 16
} block_q4_0;
static_assert(sizeof(block_q4_0) == sizeof(ggml_half) + QK4_0 / 2, "wrong q4_0 block size/padding");

#define QK8_0 32
typedef struct {
    ggml_half d;         // scale
    int8_t    qs[QK8_0]; // value / scale
} block_q8_0;
static_assert(sizeof(block_q8_0) == sizeof(ggml_half) + QK8_0, "wrong q8_0 block size/padding");

#endif // GGML_COMMON_DECL
#endif // GGML_COMMON_DECL
