// Stands for the Objective-C part of a tree's Metal backend, and writes down what its host code wants done: for one
// operation a JSON object a line, with every dispatch, its kernel, function constants, arguments, buffers and grid.
//
// An operation is read from standard input as words: its name; the bits of its parameters (a count, then integers); its
// tensors, the result first (a count, then for each a type's name or "-", four sizes and four strides). A type with "@N"
// behind it is a view: it begins where tensor N does.
//
// The device can be made less able by the environment: RECORDER_WITHOUT_MATRICES, RECORDER_SOURCE_FAILS (libraries that
// the host code makes from a source do not compile), RECORDER_MAX_BUFFER (bytes), RECORDER_MAX_THREADS.

// Of what it takes, trees differ, and nothing of it matters here.
#define ggml_metal_device_init ggml_metal_device_init_of_the_tree
#include "recorder.h"
#undef ggml_metal_device_init

#include "ggml-metal-ops.h"
#include "ggml.h"
#if __has_include("ggml-backend-impl.h")
#    include "ggml-backend-impl.h"
#    define RECORDER_BUFFERS
#endif

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

struct ggml_metal_cv {
    std::map<int, std::string> values;
};
struct ggml_metal_pipeline {
    std::string                base;
    std::map<int, std::string> constants;
    std::string                library;
};
// Pipelines are kept by their names, as on a device: two that share one by mistake are then one here, too. The device's
// own library has no name.
struct ggml_metal_library {
    std::string                                name, source;
    std::map<std::string, ggml_metal_pipeline> pipelines;
};
struct ggml_metal_encoder {
    ggml_metal_pipeline *      pipeline = nullptr;
    std::map<int, std::string> bytes, buffers;
    size_t                     memory = 0;
};

namespace {

ggml_metal_library              library;
std::vector<ggml_metal_library *> made;
ggml_metal_device               device;
std::string                     dispatches;

long environment(const char * name, long otherwise) {
    const char * value = getenv(name);
    return value ? atol(value) : otherwise;
}

// As a JSON string.
std::string quoted(const std::string & text) {
    std::string out = "\"";
    char        code[8];
    for (const unsigned char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += (char) c;
        } else if (c < 32) {
            snprintf(code, sizeof(code), "\\u%04x", c);
            out += code;
        } else {
            out += (char) c;
        }
    }
    return out + "\"";
}

std::string hex(const void * data, size_t size) {
    std::string text;
    char        byte[3];
    for (size_t i = 0; i < size; ++i) {
        snprintf(byte, sizeof(byte), "%02x", ((const unsigned char *) data)[i]);
        text += byte;
    }
    return text;
}

std::string object(const std::map<int, std::string> & entries) {
    std::string text;
    for (const auto & [key, value] : entries) {
        text += (text.empty() ? "" : ", ") + ("\"" + std::to_string(key) + "\": ") + value;
    }
    return "{" + text + "}";
}

ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && name == known) {
            return (ggml_type) i;
        }
    }
    fprintf(stderr, "the tree has no type %s\n", name.c_str());
    exit(2);
}

// GGML_OP_NONE where the tree has no such operation: the miniature, without ggml-backend-impl.h, has none on two operands.
ggml_op operation_of(const std::string & name) {
    static const std::map<std::string, ggml_op> known = {
        { "CPY", GGML_OP_CPY },           { "FLASH_ATTN_EXT", GGML_OP_FLASH_ATTN_EXT }, { "GET_ROWS", GGML_OP_GET_ROWS },
        { "MUL_MAT", GGML_OP_MUL_MAT },   { "SET_ROWS", GGML_OP_SET_ROWS },
#ifdef RECORDER_BUFFERS
        { "ADD", GGML_OP_ADD },           { "MUL", GGML_OP_MUL },                       { "SUB", GGML_OP_SUB },
#endif
    };
    const auto found = known.find(name);
    return found == known.end() ? GGML_OP_NONE : found->second;
}

// Makes the encoding of a graph of one node. Trees differ in what they want to know of it, besides the device, the graph,
// and its first node and the one behind its last; of the rest, flags and things to look at when debugging, nothing is set.
template <typename... P> ggml_metal_op_t begin(ggml_metal_op_t (*init)(P...), ggml_cgraph * graph) {
    int node = 0;

    auto argument = [&](auto * of_type) {
        using T = std::remove_pointer_t<decltype(of_type)>;
        if constexpr (std::is_same_v<T, ggml_metal_device_t>) {
            return &device;
        } else if constexpr (std::is_same_v<T, ggml_cgraph *>) {
            return graph;
        } else if constexpr (std::is_same_v<T, int>) {
            return node < 2 ? node++ : 0;
        } else {
            return T {};
        }
    };
    // in braces, so that they are made in their order
    std::tuple<P...> arguments { argument((P *) nullptr)... };
    return std::apply(init, arguments);
}

void record(ggml_tensor * op, bool claims_only, bool quiet) {
    const bool claimed = op->op != GGML_OP_NONE && ggml_metal_device_supports_op(&device, op);
    dispatches.clear();
    size_t extra = 0;
    if (claimed && !claims_only) {
        extra = recorder_alloc_size(op) - ggml_nbytes(op);
        ggml_init_params params = { 1 << 20, nullptr, true };
        ggml_context *   context = ggml_init(params);
        ggml_cgraph *    graph   = ggml_new_graph(context);
        ggml_build_forward_expand(graph, op);
        ggml_metal_op_t encoding = begin(ggml_metal_op_init, graph);
        ggml_metal_op_encode(encoding, 0);
        ggml_metal_op_free(encoding);
        ggml_free(context);
    }
    if (quiet) {
        return;
    }
    printf("{\"claimed\": %s, \"extra\": %zu, \"dispatches\": [%s]}\n", claimed ? "true" : "false", extra, dispatches.c_str());
    fflush(stdout);
}

}  // namespace

extern "C" {

#ifdef RECORDER_BUFFERS
// Asked where operations that could run at once use the same memory; here they never run at once.
size_t ggml_backend_buft_get_alloc_size(ggml_backend_buffer_type_t, const struct ggml_tensor * tensor) {
    return ggml_nbytes(tensor);
}
#endif

ggml_metal_cv_t ggml_metal_cv_init(void) {
    return new ggml_metal_cv;
}
void ggml_metal_cv_free(ggml_metal_cv_t cv) {
    delete cv;
}
void ggml_metal_cv_set_int16(ggml_metal_cv_t cv, int16_t value, int32_t idx) {
    cv->values[idx] = std::to_string(value);
}
void ggml_metal_cv_set_int32(ggml_metal_cv_t cv, int32_t value, int32_t idx) {
    cv->values[idx] = std::to_string(value);
}
void ggml_metal_cv_set_bool(ggml_metal_cv_t cv, bool value, int32_t idx) {
    cv->values[idx] = value ? "true" : "false";
}

struct ggml_metal_pipeline_with_params ggml_metal_library_get_pipeline(ggml_metal_library_t from, const char * name) {
    ggml_metal_pipeline_with_params found = {};
    const auto                      at    = from->pipelines.find(name);
    found.pipeline                        = at == from->pipelines.end() ? nullptr : &at->second;
    return found;
}
struct ggml_metal_pipeline_with_params ggml_metal_library_compile_pipeline(ggml_metal_library_t into, const char * base,
                                                                           const char * name, ggml_metal_cv_t cv) {
    into->pipelines[name] = { base, cv ? cv->values : std::map<int, std::string>(), into->name };
    return ggml_metal_library_get_pipeline(into, name);
}
ggml_metal_library_t ggml_metal_library_init_from_source(ggml_metal_device_t, const char * source, bool) {
    if (getenv("RECORDER_SOURCE_FAILS")) {
        fprintf(stderr, "ggml_metal_library_init_from_source: error compiling source: asked to fail\n");
        return nullptr;
    }
    made.push_back(new ggml_metal_library { "source" + std::to_string(made.size()), source, {} });
    return made.back();
}
ggml_metal_device_t ggml_metal_library_get_device(ggml_metal_library_t) {
    return &device;
}
int ggml_metal_pipeline_max_theads_per_threadgroup(struct ggml_metal_pipeline_with_params) {
    return (int) environment("RECORDER_MAX_THREADS", 1024);
}
void ggml_metal_pipeline_free(ggml_metal_pipeline_t) {}

ggml_metal_device_t ggml_metal_device_init(int) {
    return &device;
}
void ggml_metal_device_free(ggml_metal_device_t) {}
ggml_metal_library_t ggml_metal_device_get_library(ggml_metal_device_t) {
    return &library;
}
const struct ggml_metal_device_props * ggml_metal_device_get_props(ggml_metal_device_t of) {
    return &of->props;
}

// A buffer is the number of its tensor and an offset.
struct ggml_metal_buffer_id ggml_metal_buffer_get_id(ggml_metal_buffer_t, const struct ggml_tensor * tensor) {
    return { tensor->data, 0 };
}

ggml_metal_encoder_t ggml_metal_encoder_init(ggml_metal_cmd_buf_t, bool) {
    return new ggml_metal_encoder;
}
void ggml_metal_encoder_free(ggml_metal_encoder_t encoder) {
    delete encoder;
}
void ggml_metal_encoder_debug_group_push(ggml_metal_encoder_t, const char *) {}
void ggml_metal_encoder_debug_group_pop(ggml_metal_encoder_t) {}
void ggml_metal_encoder_memory_barrier(ggml_metal_encoder_t) {}
void ggml_metal_encoder_end_encoding(ggml_metal_encoder_t) {}
void ggml_metal_encoder_set_pipeline(ggml_metal_encoder_t encoder, struct ggml_metal_pipeline_with_params pipeline) {
    // What a kernel needs is set anew for it; nothing of the one before may slip through
    *encoder          = {};
    encoder->pipeline = (ggml_metal_pipeline *) pipeline.pipeline;
}
void ggml_metal_encoder_set_bytes(ggml_metal_encoder_t encoder, void * data, size_t size, int idx) {
    encoder->bytes[idx] = "\"" + hex(data, size) + "\"";
}
void ggml_metal_encoder_set_buffer(ggml_metal_encoder_t encoder, struct ggml_metal_buffer_id buffer, int idx) {
    encoder->buffers[idx] = "[" + std::to_string((uintptr_t) buffer.metal) + ", " + std::to_string(buffer.offs) + "]";
}
void ggml_metal_encoder_set_threadgroup_memory_size(ggml_metal_encoder_t encoder, size_t size, int) {
    encoder->memory = size;
}
void ggml_metal_encoder_dispatch_threadgroups(ggml_metal_encoder_t encoder, int tg0, int tg1, int tg2, int tptg0,
                                              int tptg1, int tptg2) {
    char shape[256];
    snprintf(shape, sizeof(shape), "\"memory\": %zu, \"groups\": [%d, %d, %d], \"threads\": [%d, %d, %d]", encoder->memory, tg0,
             tg1, tg2, tptg0, tptg1, tptg2);
    dispatches += (dispatches.empty() ? "" : ", ") + ("{\"kernel\": \"" + encoder->pipeline->base + "\", ") + "\"library\": \"" +
                  encoder->pipeline->library + "\", " + "\"constants\": " + object(encoder->pipeline->constants) + ", \"bytes\": " + object(encoder->bytes) +
                  ", \"buffers\": " + object(encoder->buffers) + ", " + shape + "}";
}

}  // extern "C"

// The types of the tree: a line for each, with the values and bytes of a block.
static void list_types() {
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const char * name = ggml_get_type_traits((ggml_type) i)->type_name;
        if (name && ggml_blck_size((ggml_type) i) > 0) {
            printf("{\"name\": \"%s\", \"block\": %d, \"bytes\": %d}\n", name, (int) ggml_blck_size((ggml_type) i),
                   (int) ggml_type_size((ggml_type) i));
        }
    }
}

int main(int argc, char ** argv) {
    if (argc > 1 && !strcmp(argv[1], "--types")) {
        list_types();
        return 0;
    }
    const bool claims_only = argc > 1 && !strcmp(argv[1], "--claims");
    const bool sources     = argc > 1 && !strcmp(argv[1], "--sources");
    device.props.has_simdgroup_reduction    = true;
    device.props.has_simdgroup_mm           = !getenv("RECORDER_WITHOUT_MATRICES");
    device.props.has_bfloat                 = true;
    device.props.max_buffer_size            = (size_t) environment("RECORDER_MAX_BUFFER", 1l << 40);
    device.props.max_theadgroup_memory_size = 32768;
    std::string name;
    while (std::cin >> name) {
        int32_t count = 0;
        std::cin >> count;
        std::vector<int32_t> parameters(count);
        for (int32_t & parameter : parameters) {
            std::cin >> parameter;
        }
        std::cin >> count;
        std::vector<std::unique_ptr<ggml_tensor>> tensors;
#ifdef RECORDER_BUFFERS
        std::vector<std::unique_ptr<ggml_backend_buffer>> buffers;
#endif
        for (int i = 0; i < count; ++i) {
            std::string type;
            std::cin >> type;
            const size_t view   = type.find('@');
            const size_t origin = view == std::string::npos ? (size_t) i : (size_t) atoi(type.c_str() + view + 1);
            type                = type.substr(0, view);
            tensors.emplace_back(type == "-" ? nullptr : new ggml_tensor());
            for (int j = 0; j < 8; ++j) {
                int64_t number = 0;
                std::cin >> number;
                if (tensors[i]) {
                    j < 4 ? tensors[i]->ne[j] = number : tensors[i]->nb[j - 4] = number;
                }
            }
            if (!tensors[i]) {
                continue;
            }
            tensors[i]->type = type_of(type);
            tensors[i]->data = (void *) (uintptr_t) origin;
            tensors[i]->view_src = origin < (size_t) i ? tensors[origin].get() : nullptr;
#ifdef RECORDER_BUFFERS
            buffers.emplace_back(new ggml_backend_buffer());
            tensors[i]->buffer = buffers.back().get();
#endif
            if (i > 0) {
                tensors[0]->src[i - 1] = tensors[i].get();
            }
        }
        tensors[0]->op = operation_of(name);
        memcpy(tensors[0]->op_params, parameters.data(), parameters.size() * sizeof(int32_t));
        record(tensors[0].get(), claims_only || sources, sources);
    }
    for (const ggml_metal_library * one : made) {
        if (sources) {
            printf("{\"name\": %s, \"source\": %s}\n", quoted(one->name).c_str(), quoted(one->source).c_str());
        }
    }
    return 0;
}
