// The Metal device as the host code sees it: Objective-C behind plain functions.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// Values of function constants, by number.
typedef struct ggml_metal_cv * ggml_metal_cv_t;

ggml_metal_cv_t ggml_metal_cv_init(void);
void            ggml_metal_cv_free(ggml_metal_cv_t cv);
void            ggml_metal_cv_set_int16(ggml_metal_cv_t cv, int16_t value, int32_t idx);
void            ggml_metal_cv_set_int32(ggml_metal_cv_t cv, int32_t value, int32_t idx);
void            ggml_metal_cv_set_bool(ggml_metal_cv_t cv, bool value, int32_t idx);

// A pipeline is a kernel with its function constants; a library keeps them by name, and has none at first.
typedef struct ggml_metal_pipeline * ggml_metal_pipeline_t;
typedef struct ggml_metal_library *  ggml_metal_library_t;
typedef struct ggml_metal_device *   ggml_metal_device_t;
typedef struct ggml_metal_buffer *   ggml_metal_buffer_t;
typedef void *                       ggml_metal_cmd_buf_t;

struct ggml_metal_pipeline_with_params {
    ggml_metal_pipeline_t pipeline;
};

struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t lib, const char * name);
struct ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(
    ggml_metal_library_t lib, const char * base, const char * name, ggml_metal_cv_t cv);
// A library of other kernels than the device's own; null where the source does not compile.
ggml_metal_library_t ggml_metal_library_init_from_source(ggml_metal_device_t dev, const char * source, bool verbose);
ggml_metal_device_t ggml_metal_library_get_device(ggml_metal_library_t lib);
void                ggml_metal_pipeline_free(ggml_metal_pipeline_t pipeline);
int ggml_metal_pipeline_max_theads_per_threadgroup(struct ggml_metal_pipeline_with_params pipeline);

// The pipelines of operations, made on first use.
struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_get_rows(ggml_metal_library_t lib, enum ggml_type tsrc);
struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_set_rows(
    ggml_metal_library_t lib, const struct ggml_tensor * op);
struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_cpy(
    ggml_metal_library_t lib, enum ggml_type tsrc, enum ggml_type tdst);
struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_flash_attn_ext(
    ggml_metal_library_t lib, const struct ggml_tensor * op, bool has_mask, bool has_sinks, bool has_bias, bool has_scap);
struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_flash_attn_ext_vec(
    ggml_metal_library_t lib, const struct ggml_tensor * op, bool has_mask, bool has_sinks, bool has_bias, bool has_scap,
    int32_t nwg);
struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_flash_attn_ext_vec_reduce(
    ggml_metal_library_t lib, int32_t nwg);

struct ggml_metal_device_props {
    bool   has_simdgroup_reduction;
    bool   has_simdgroup_mm;
    bool   has_bfloat;
    size_t max_buffer_size;
    size_t max_theadgroup_memory_size;
};

ggml_metal_device_t                    ggml_metal_device_init(int device);
void                                   ggml_metal_device_free(ggml_metal_device_t dev);
ggml_metal_library_t                   ggml_metal_device_get_library(ggml_metal_device_t dev);
const struct ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t dev);
bool                                   ggml_metal_device_supports_op(ggml_metal_device_t dev, const struct ggml_tensor * op);

struct ggml_metal_buffer_id {
    void * metal;
    size_t offs;
};

struct ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t buf, const struct ggml_tensor * t);

// Everything set stays so for the dispatches that follow.
typedef struct ggml_metal_encoder * ggml_metal_encoder_t;

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t cmd_buf, bool concurrent);
void ggml_metal_encoder_free(ggml_metal_encoder_t encoder);
void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t encoder, const char * name);
void ggml_metal_encoder_debug_group_pop(ggml_metal_encoder_t encoder);
void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t encoder, struct ggml_metal_pipeline_with_params pipeline);
void ggml_metal_encoder_set_bytes(ggml_metal_encoder_t encoder, void * data, size_t size, int idx);
void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t encoder, struct ggml_metal_buffer_id buffer, int idx);
void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t encoder, size_t size, int idx);
void ggml_metal_encoder_dispatch_threadgroups(
    ggml_metal_encoder_t encoder, int tg0, int tg1, int tg2, int tptg0, int tptg1, int tptg2);
void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t encoder);
void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t encoder);

#ifdef __cplusplus
}
#endif
