#include "ggml-cpu.h"

#include "ggml-quants.h"
#include "quants.h"

// A row of the type is multiplied with one of `other`; the reference conversions are fast enough.
#define ENTRY(id, name, other) \
    [id] = { .from_float = ggml_encode_##name, .vec_dot = ggml_dot_##name, .vec_dot_type = other, .nrows = 1 }

static const struct ggml_type_traits_cpu type_traits_cpu[GGML_TYPE_COUNT] = {
    ENTRY(GGML_TYPE_F32, f32, GGML_TYPE_F32),
    ENTRY(GGML_TYPE_F16, f16, GGML_TYPE_F16),
    ENTRY(GGML_TYPE_Q4_0, q4_0, GGML_TYPE_Q8_0),
    ENTRY(GGML_TYPE_Q8_0, q8_0, GGML_TYPE_Q8_0),
};

const struct ggml_type_traits_cpu * ggml_get_type_traits_cpu(enum ggml_type type) {
    GGML_ASSERT((unsigned) type < GGML_TYPE_COUNT);
    return type_traits_cpu + type;
}
