#include "ggml-alloc.h"

#include "ops.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

struct ggml_cgraph {
    ggml_tensor * result = nullptr;
};

struct ggml_context {
    std::deque<ggml_tensor>        tensors;
    std::deque<std::vector<float>> computed; // memory of what was computed at once
    ggml_cgraph                    graph;
};

struct ggml_backend_buffer_type {
    const char * name;
};

struct ggml_backend_buffer {
    ggml_backend_buffer_type *     type;
    std::vector<std::vector<char>> memory;
};

struct ggml_backend_device {
    const char *               name;
    ggml_backend_buffer_type * memory;
};

struct ggml_backend {
    ggml_backend_dev_t device;
};

static ggml_backend_buffer_type  cpu_memory = { "CPU" }, gpu_memory = { "GPU0" };
static ggml_backend_device       cpu    = { "CPU", &cpu_memory };
static ggml_backend_device       gpu    = { "GPU0", &gpu_memory };
static ggml_backend              stream = { &cpu };

// -- tensors ------------------------------------------------------------------------------------------------------

ggml_context * ggml_init(ggml_init_params params) {
    GGML_ASSERT(params.no_alloc);
    return new ggml_context;
}

void ggml_free(ggml_context * ctx) {
    delete ctx;
}

size_t ggml_tensor_overhead() {
    return sizeof(ggml_tensor);
}

size_t ggml_graph_overhead() {
    return sizeof(ggml_cgraph);
}

ggml_cgraph * ggml_new_graph(ggml_context * ctx) {
    return &ctx->graph;
}

void ggml_build_forward_expand(ggml_cgraph * graph, ggml_tensor * tensor) {
    graph->result = tensor;
}

ggml_tensor * ggml_graph_node(ggml_cgraph * graph, int number) {
    GGML_ASSERT(number == 0);
    return graph->result;
}

size_t ggml_nbytes(const ggml_tensor * tensor) {
    return tensor->nb[3] * (size_t) tensor->ne[3];
}

ggml_tensor * ggml_new_tensor_2d(ggml_context * ctx, ggml_type type, int64_t width, int64_t rows) {
    ctx->tensors.push_back(ggml_rows(type, width, rows, nullptr));
    return &ctx->tensors.back();
}

ggml_tensor * ggml_new_tensor_3d(ggml_context * ctx, ggml_type type, int64_t width, int64_t rows, int64_t heads) {
    ggml_tensor * tensor = ggml_new_tensor_2d(ctx, type, width, rows * heads);
    tensor->ne[1] = rows;
    tensor->ne[2] = heads;
    tensor->nb[2] = tensor->nb[1] * (size_t) rows;
    return tensor;
}

// Gives a tensor without gaps this shape.
static ggml_tensor * shape(ggml_tensor * tensor, int n_dims, const int64_t * ne) {
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        tensor->ne[i] = i < n_dims ? ne[i] : 1;
        tensor->nb[i] = i == 0 ? ggml_type_size(tensor->type) :
            i == 1             ? ggml_row_size(tensor->type, tensor->ne[0]) :
                                 tensor->nb[i - 1] * (size_t) tensor->ne[i - 1];
    }
    return tensor;
}

ggml_tensor * ggml_new_tensor(ggml_context * ctx, ggml_type type, int n_dims, const int64_t * ne) {
    return shape(ggml_new_tensor_2d(ctx, type, ne[0], 1), n_dims, ne);
}

static ggml_tensor * reshaped(ggml_context * ctx, ggml_tensor * a, int n_dims, const int64_t * ne) {
    GGML_ASSERT(ggml_is_contiguous(a));
    ctx->tensors.push_back(*a);
    ctx->tensors.back().view_src = a;
    return shape(&ctx->tensors.back(), n_dims, ne);
}

ggml_tensor * ggml_reshape_3d(ggml_context * ctx, ggml_tensor * a, int64_t ne0, int64_t ne1, int64_t ne2) {
    const int64_t ne[] = { ne0, ne1, ne2 };
    return reshaped(ctx, a, 3, ne);
}

ggml_tensor * ggml_reshape_4d(ggml_context * ctx, ggml_tensor * a, int64_t ne0, int64_t ne1, int64_t ne2, int64_t ne3) {
    const int64_t ne[] = { ne0, ne1, ne2, ne3 };
    return reshaped(ctx, a, 4, ne);
}

bool ggml_is_contiguous(const ggml_tensor * tensor) {
    ggml_tensor dense = *tensor;
    shape(&dense, GGML_MAX_DIMS, tensor->ne);
    return dense.nb[1] == tensor->nb[1] && (tensor->ne[2] == 1 || dense.nb[2] == tensor->nb[2]);
}

ggml_tensor * ggml_cont(ggml_context *, ggml_tensor * a) {
    GGML_ASSERT(ggml_is_contiguous(a)); // there are no others here
    return a;
}

// The tensor as the result of an operation.
static ggml_tensor * by(ggml_tensor * tensor, ggml_op op, ggml_tensor * a, ggml_tensor * b) {
    tensor->op     = op;
    tensor->src[0] = a;
    tensor->src[1] = b;
    return tensor;
}

ggml_tensor * ggml_set_rows(ggml_context *, ggml_tensor * to, ggml_tensor * from, ggml_tensor * numbers) {
    return by(to, GGML_OP_SET_ROWS, from, numbers);
}

ggml_tensor * ggml_cpy(ggml_context *, ggml_tensor * from, ggml_tensor * to) {
    return by(to, GGML_OP_CPY, from, nullptr);
}

ggml_tensor * ggml_get_rows(ggml_context * ctx, ggml_tensor * from, ggml_tensor * numbers) {
    return by(ggml_new_tensor_2d(ctx, GGML_TYPE_F32, from->ne[0], numbers->ne[0]), GGML_OP_GET_ROWS, from, numbers);
}

ggml_tensor * ggml_mul_mat(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return by(ggml_new_tensor_2d(ctx, GGML_TYPE_F32, a->ne[1], b->ne[1]), GGML_OP_MUL_MAT, a, b);
}

ggml_tensor * ggml_flash_attn_ext(
    ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask, float scale, float max_bias,
    float logit_softcap) {
    ggml_tensor * result = by(
        ggml_new_tensor_3d(ctx, GGML_TYPE_F32, v->ne[0], q->ne[2], q->ne[1]), GGML_OP_FLASH_ATTN_EXT, q, k);
    const float parameters[] = { scale, max_bias, logit_softcap };
    memcpy(result->op_params, parameters, sizeof parameters);
    result->src[2] = v;
    result->src[3] = mask;
    return result;
}

// -- devices ------------------------------------------------------------------------------------------------------

void ggml_backend_load_all() {}

size_t ggml_backend_dev_count() {
    return getenv("MINIATURE_GPU") ? 2 : 1;
}

ggml_backend_dev_t ggml_backend_dev_get(size_t number) {
    return number == 0 ? &cpu : &gpu;
}

ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t device) {
    return device->memory;
}

ggml_backend_buffer_type_t ggml_backend_cpu_buffer_type() {
    return &cpu_memory;
}

const char * ggml_backend_dev_name(ggml_backend_dev_t device) {
    return device->name;
}

enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t device) {
    return device == &gpu ? GGML_BACKEND_DEVICE_TYPE_GPU : GGML_BACKEND_DEVICE_TYPE_CPU;
}

// Attention is the cache's own work here.
bool ggml_backend_dev_supports_op(ggml_backend_dev_t device, const ggml_tensor * op) {
    if (device == &cpu) {
        return op->op != GGML_OP_FLASH_ATTN_EXT;
    }
    const std::string without = getenv("MINIATURE_GPU");
    bool known = without.find(ggml_type_name(op->type)) == std::string::npos;
    known = known && !(without == "prompts" && op->op == GGML_OP_FLASH_ATTN_EXT && op->src[0]->ne[1] > 1);
    known = known && !(without == "products" && op->op == GGML_OP_MUL_MAT);
    for (const ggml_tensor * operand : op->src) {
        known = known && (!operand || without.find(ggml_type_name(operand->type)) == std::string::npos);
    }
    return known;
}

ggml_backend_t ggml_backend_dev_init(ggml_backend_dev_t, const char *) {
    return &stream;
}

void ggml_backend_free(ggml_backend_t) {}

ggml_backend_buffer_t ggml_backend_alloc_ctx_tensors(ggml_context * ctx, ggml_backend_t backend) {
    return ggml_backend_alloc_ctx_tensors_from_buft(ctx, backend->device->memory);
}

ggml_backend_buffer_t ggml_backend_alloc_ctx_tensors_from_buft(ggml_context * ctx, ggml_backend_buffer_type_t type) {
    ggml_backend_buffer * buffer = new ggml_backend_buffer { type, {} };
    for (ggml_tensor & tensor : ctx->tensors) {
        buffer->memory.emplace_back(ggml_nbytes(&tensor));
        tensor.data = buffer->memory.back().data();
        tensor.buffer = buffer;
    }
    return buffer;
}

void ggml_backend_buffer_free(ggml_backend_buffer_t buffer) {
    delete buffer;
}

ggml_backend_buffer_type_t ggml_backend_buffer_get_type(ggml_backend_buffer_t buffer) {
    return buffer->type;
}

void ggml_backend_tensor_set(ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    memcpy(static_cast<char *>(tensor->data) + offset, data, size);
}

void ggml_backend_tensor_get(const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    memcpy(data, static_cast<const char *>(tensor->data) + offset, size);
}

// -- operations ---------------------------------------------------------------------------------------------------

template <typename T> static T * row(const ggml_tensor * tensor, int64_t number) {
    return reinterpret_cast<T *>(static_cast<char *>(tensor->data) + number * tensor->nb[1]);
}

// One row of floats into a row of any type, or the other way.
static void convert(const ggml_tensor * from, int64_t number, const ggml_tensor * to, int64_t place) {
    GGML_ASSERT(place >= 0 && place < to->ne[1] && from->ne[0] == to->ne[0]);
    if (from->type == GGML_TYPE_F32) {
        ggml_get_type_traits_cpu(to->type)->from_float(row<float>(from, number), row<void>(to, place), to->ne[0]);
    } else {
        GGML_ASSERT(to->type == GGML_TYPE_F32);
        ggml_get_type_traits(from->type)->to_float(row<void>(from, number), row<float>(to, place), to->ne[0]);
    }
}

static void multiply(const ggml_tensor * a, const ggml_tensor * b, const ggml_tensor * to) {
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(a->type);
    std::vector<char> other(ggml_row_size(traits->vec_dot_type, b->ne[0]));
    for (int64_t column = 0; column < b->ne[1]; column++) {
        ggml_get_type_traits_cpu(traits->vec_dot_type)->from_float(row<float>(b, column), other.data(), b->ne[0]);
        for (int64_t number = 0; number < a->ne[1]; number++) {
            float * product = row<float>(to, column) + number;
            traits->vec_dot((int) a->ne[0], product, 0, row<void>(a, number), 0, other.data(), 0, 1);
        }
    }
}

// New floats of the shape of `like`, in memory of the context.
static ggml_tensor * computed(ggml_context * ctx, const ggml_tensor * like) {
    ggml_tensor * to = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, like->ne[0], like->ne[1], like->ne[2]);
    ctx->computed.emplace_back(ggml_nbytes(to) / sizeof(float));
    to->data = ctx->computed.back().data();
    return to;
}

ggml_tensor * ggml_cast(ggml_context * ctx, ggml_tensor * from, ggml_type type) {
    GGML_ASSERT(type == GGML_TYPE_F32 && from->ne[2] == 1);
    ggml_tensor * to = computed(ctx, from);
    for (int64_t number = 0; number < from->ne[1]; number++) {
        convert(from, number, to, number);
    }
    return to;
}

// a and sign times b, of which there are as many rows.
static ggml_tensor * sum(ggml_context * ctx, const ggml_tensor * a, const ggml_tensor * b, float sign) {
    GGML_ASSERT(a->type == GGML_TYPE_F32 && b->type == GGML_TYPE_F32);
    GGML_ASSERT(a->ne[0] == b->ne[0] && a->ne[1] == b->ne[1] && a->ne[2] == 1);
    ggml_tensor * to = computed(ctx, a);
    for (int64_t number = 0; number < a->ne[1]; number++) {
        for (int64_t i = 0; i < a->ne[0]; i++) {
            row<float>(to, number)[i] = row<float>(a, number)[i] + sign * row<float>(b, number)[i];
        }
    }
    return to;
}

ggml_tensor * ggml_add(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return sum(ctx, a, b, 1.0f);
}

ggml_tensor * ggml_sub(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    return sum(ctx, a, b, -1.0f);
}

ggml_tensor * ggml_mul(ggml_context * ctx, ggml_tensor * a, ggml_tensor * b) {
    GGML_ASSERT(a->type == GGML_TYPE_F32 && b->type == GGML_TYPE_F32 && ggml_is_contiguous(a) && ggml_is_contiguous(b));
    GGML_ASSERT(a->ne[0] == b->ne[0] && a->ne[1] % b->ne[1] == 0 && a->ne[2] % b->ne[2] == 0 && a->ne[3] == 1 && b->ne[3] == 1);
    ggml_tensor * to = computed(ctx, a);
    const float * left = static_cast<const float *>(a->data), * right = static_cast<const float *>(b->data);
    for (int64_t i = 0; i < a->ne[0] * a->ne[1] * a->ne[2]; i++) {
        const int64_t at = i % a->ne[0], number = i / a->ne[0] % a->ne[1], head = i / a->ne[0] / a->ne[1];
        static_cast<float *>(to->data)[i] = left[i] * right[at + (number % b->ne[1] + head % b->ne[2] * b->ne[1]) * b->ne[0]];
    }
    return to;
}

ggml_tensor * ggml_format_name(ggml_tensor * tensor, const char *, ...) {
    return tensor;
}

ggml_status ggml_backend_graph_compute(ggml_backend_t, ggml_cgraph * graph) {
    ggml_tensor * to = graph->result;
    const ggml_tensor * from = to->src[0];
    const ggml_compute_params params = { 0, 1, nullptr, 0, nullptr, false };
    switch (to->op) {
        case GGML_OP_SET_ROWS:
        case GGML_OP_CPY:
            for (int64_t number = 0; number < from->ne[1]; number++) {
                convert(from, number, to, to->op == GGML_OP_CPY ? number : row<int64_t>(to->src[1], 0)[number]);
            }
            break;
        case GGML_OP_GET_ROWS:
            ggml_compute_forward_get_rows(&params, to);
            break;
        case GGML_OP_MUL_MAT:
            multiply(from, to->src[1], to);
            break;
        default:
            GGML_ABORT("no operation %d", (int) to->op);
    }
    return GGML_STATUS_SUCCESS;
}
