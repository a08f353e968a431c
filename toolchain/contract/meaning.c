// Says where upstream puts what an operation is given: which of its parameters and operands have which number. The host
// code of a backend reads them by number, and nothing in a signature tells.
#include "ggml.h"

#include <stdio.h>
#include <string.h>

static int parameter(const struct ggml_tensor * op, float value) {
    for (size_t i = 0; i < sizeof(op->op_params) / sizeof(op->op_params[0]); ++i) {
        if (!memcmp(&op->op_params[i], &value, sizeof(value))) {
            return (int) i;
        }
    }
    return -1;
}

static int operand(const struct ggml_tensor * op, const struct ggml_tensor * of) {
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        if (op->src[i] == of) {
            return i;
        }
    }
    return -1;
}

static int dimension(const struct ggml_tensor * of, int64_t size) {
    for (int i = 0; i < 4; ++i) {
        if (of->ne[i] == size) {
            return i;
        }
    }
    return -1;
}

static void say(const char * operation, const char * what, const char * name, int number) {
    printf("%s %s %s %d\n", operation, what, name, number);
}

int main(void) {
    const struct ggml_init_params how = { 64 * ggml_tensor_overhead(), NULL, true };
    struct ggml_context *         ctx = ggml_init(how);

    struct ggml_tensor * q    = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 128, 64, 6);
    struct ggml_tensor * k    = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, 128, 256, 2);
    struct ggml_tensor * v    = ggml_new_tensor_3d(ctx, GGML_TYPE_F16, 96, 256, 2);
    struct ggml_tensor * mask = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 256, 64);
    struct ggml_tensor * fa   = ggml_flash_attn_ext(ctx, q, k, v, mask, 0.3125f, 8.0f, 30.0f);
    say("FLASH_ATTN_EXT", "parameter", "scale", parameter(fa, 0.3125f));
    say("FLASH_ATTN_EXT", "parameter", "max_bias", parameter(fa, 8.0f));
    say("FLASH_ATTN_EXT", "parameter", "logit_softcap", parameter(fa, 30.0f));
    say("FLASH_ATTN_EXT", "operand", "Q", operand(fa, q));
    say("FLASH_ATTN_EXT", "operand", "K", operand(fa, k));
    say("FLASH_ATTN_EXT", "operand", "V", operand(fa, v));
    say("FLASH_ATTN_EXT", "operand", "mask", operand(fa, mask));
    say("FLASH_ATTN_EXT", "dimension", "values", dimension(fa, 96));
    say("FLASH_ATTN_EXT", "dimension", "heads", dimension(fa, 6));
    say("FLASH_ATTN_EXT", "dimension", "queries", dimension(fa, 64));
#ifdef HAS_SINKS
    struct ggml_tensor * sinks = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 6, 1);
    sinks->ne[1] = 1;
    ggml_flash_attn_ext_add_sinks(fa, sinks);
    say("FLASH_ATTN_EXT", "operand", "sinks", operand(fa, sinks));
#endif

    struct ggml_tensor * rows    = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 128, 10);
    struct ggml_tensor * some    = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 128, 3);
    struct ggml_tensor * numbers = ggml_new_tensor_2d(ctx, GGML_TYPE_I64, 3, 1);
    struct ggml_tensor * picks   = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, 3, 1);
    struct ggml_tensor * set     = ggml_set_rows(ctx, rows, some, numbers);
    say("SET_ROWS", "operand", "source", operand(set, some));
    say("SET_ROWS", "operand", "rows", operand(set, numbers));
    struct ggml_tensor * get = ggml_get_rows(ctx, rows, picks);
    say("GET_ROWS", "operand", "source", operand(get, rows));
    say("GET_ROWS", "operand", "rows", operand(get, picks));
    struct ggml_tensor * copy = ggml_cpy(ctx, some, ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 128, 3));
    say("CPY", "operand", "source", operand(copy, some));
    ggml_free(ctx);
    return 0;
}
