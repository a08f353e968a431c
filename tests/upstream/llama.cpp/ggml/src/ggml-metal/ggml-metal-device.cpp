#include "ggml-metal-device.h"

#include "ggml-metal-impl.h"

#include <cstdio>

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_get_rows(ggml_metal_library_t lib, ggml_type tsrc) {
    char base[256];
    snprintf(base, 256, "kernel_get_rows_%s", ggml_type_name(tsrc));

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, base);
    return res.pipeline ? res : ggml_metal_library_compile_pipeline(lib, base, base, nullptr);
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_set_rows(ggml_metal_library_t lib, const ggml_tensor * op) {
    char base[256];
    snprintf(base, 256, "kernel_set_rows_%s_%s_%s", ggml_type_name(op->src[0]->type), ggml_type_name(op->src[1]->type),
             ggml_type_name(op->type));

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, base);
    return res.pipeline ? res : ggml_metal_library_compile_pipeline(lib, base, base, nullptr);
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_cpy(ggml_metal_library_t lib, ggml_type tsrc, ggml_type tdst) {
    char base[256];
    snprintf(base, 256, "kernel_cpy_%s_%s", ggml_type_name(tsrc), ggml_type_name(tdst));

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, base);
    return res.pipeline ? res : ggml_metal_library_compile_pipeline(lib, base, base, nullptr);
}

static void set_constants(ggml_metal_cv_t cv, bool has_mask, bool has_sinks, bool has_bias, bool has_scap, int32_t nwg) {
    ggml_metal_cv_set_bool(cv, has_mask, FC_FLASH_ATTN_EXT + 0);
    ggml_metal_cv_set_bool(cv, has_sinks, FC_FLASH_ATTN_EXT + 1);
    ggml_metal_cv_set_bool(cv, has_bias, FC_FLASH_ATTN_EXT + 2);
    ggml_metal_cv_set_bool(cv, has_scap, FC_FLASH_ATTN_EXT + 3);
    ggml_metal_cv_set_int32(cv, nwg, FC_FLASH_ATTN_EXT + 4);
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_flash_attn_ext(
    ggml_metal_library_t lib, const ggml_tensor * op, bool has_mask, bool has_sinks, bool has_bias, bool has_scap) {
    char base[256];
    char name[256];

    const int dk = (int) op->src[1]->ne[0], dv = (int) op->src[2]->ne[0];

    snprintf(base, 256, "kernel_flash_attn_ext_%s_dk%d_dv%d", ggml_type_name(op->src[1]->type), dk, dv);
    snprintf(name, 256, "%s_%d%d%d%d", base, has_mask, has_sinks, has_bias, has_scap);

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, name);
    if (!res.pipeline) {
        ggml_metal_cv_t cv = ggml_metal_cv_init();
        set_constants(cv, has_mask, has_sinks, has_bias, has_scap, 1);
        res = ggml_metal_library_compile_pipeline(lib, base, name, cv);
        ggml_metal_cv_free(cv);
    }
    return res;
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_flash_attn_ext_vec(
    ggml_metal_library_t lib, const ggml_tensor * op, bool has_mask, bool has_sinks, bool has_bias, bool has_scap,
    int32_t nwg) {
    char base[256];
    char name[256];

    const int dk = (int) op->src[1]->ne[0], dv = (int) op->src[2]->ne[0];

    snprintf(base, 256, "kernel_flash_attn_ext_vec_%s_dk%d_dv%d", ggml_type_name(op->src[1]->type), dk, dv);
    snprintf(name, 256, "%s_%d%d%d%d_%d", base, has_mask, has_sinks, has_bias, has_scap, nwg);

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, name);
    if (!res.pipeline) {
        ggml_metal_cv_t cv = ggml_metal_cv_init();
        set_constants(cv, has_mask, has_sinks, has_bias, has_scap, nwg);
        res = ggml_metal_library_compile_pipeline(lib, base, name, cv);
        ggml_metal_cv_free(cv);
    }
    return res;
}

ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline_flash_attn_ext_vec_reduce(ggml_metal_library_t lib, int32_t nwg) {
    char name[256];
    snprintf(name, 256, "kernel_flash_attn_ext_vec_reduce_%d", nwg);

    ggml_metal_pipeline_with_params res = ggml_metal_library_get_pipeline(lib, name);
    if (!res.pipeline) {
        ggml_metal_cv_t cv = ggml_metal_cv_init();
        ggml_metal_cv_set_int32(cv, nwg, FC_FLASH_ATTN_EXT + 4);
        res = ggml_metal_library_compile_pipeline(lib, "kernel_flash_attn_ext_vec_reduce", name, cv);
        ggml_metal_cv_free(cv);
    }
    return res;
}
