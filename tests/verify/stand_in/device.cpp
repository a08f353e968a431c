// A stand-in for Metal's device: a real backend of ggml that calls itself a GPU named MTL0, has memory that the CPU does
// not use, and computes with the CPU's kernels. In a release it takes the place of libggml-metal, so that turbo-probe and
// llama-server load it as they load Metal on a Mac. The file stand-in-fault beside it, or the variable STAND_IN_FAULT,
// gives it one fault:
//
//   no-attention-64   does not support FLASH_ATTN_EXT at head size 64
//   mask              ignores the mask of FLASH_ATTN_EXT
//   mixed             reads values of one of our types a tenth too large beside q8_0 keys
//   nothing           supports no operation, so that the scheduler computes all of it on the CPU
//   absent            is no device of llama-server, which then computes on the CPU, though turbo-probe has it
//   noise=X           adds noise of X times its standard deviation to each result of FLASH_ATTN_EXT; no fault if small
//   slow=X            takes X seconds before there is a device, as the compilation of kernels does
//
// Unlike Metal it needs no compiler, computes in the CPU's order and rounding, and is never asynchronous.

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-impl.h"
#include "ggml.h"

#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

std::string chosen() {
    if (const char * fault = getenv("STAND_IN_FAULT")) {
        return fault;
    }
    Dl_info     own;
    std::string word;
    if (dladdr((const void *) &chosen, &own) && own.dli_fname) {
        const std::string path = own.dli_fname;
        std::ifstream(path.substr(0, path.rfind('/') + 1) + "stand-in-fault") >> word;
    }
    return word;
}

const std::string fault = chosen();
ggml_guid         own_guid = { 't', 'q', '-', 's', 't', 'a', 'n', 'd', '-', 'i', 'n', 0, 0, 0, 0, 1 };
const size_t      MEMORY = size_t(16) << 30;

ggml_backend_reg_t  reg();

ggml_backend_dev_t cpu() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

bool in_server() {
    std::string name;
    std::ifstream("/proc/self/comm") >> name;
    return name == "llama-server";
}

double number_of(const std::string & name) {
    return fault.rfind(name + "=", 0) == 0 ? atof(fault.c_str() + name.size() + 1) : 0;
}

// -- memory -----------------------------------------------------------------------------------------------------------

void free_buffer(ggml_backend_buffer_t buffer) { free(buffer->context); }

void * base_of(ggml_backend_buffer_t buffer) { return buffer->context; }

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    memcpy((char *) tensor->data + offset, data, size);
}

void get_tensor(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}

void memset_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    memset((char *) tensor->data + offset, value, size);
}

void clear(ggml_backend_buffer_t buffer, uint8_t value) { memset(buffer->context, value, buffer->size); }

const char * name_of_memory(ggml_backend_buffer_type_t) { return "MTL0"; }

size_t alignment(ggml_backend_buffer_type_t) { return 64; }

bool is_host(ggml_backend_buffer_type_t) { return false; }

ggml_backend_buffer_t alloc(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_i calls = {};
    calls.free_buffer   = free_buffer;
    calls.get_base      = base_of;
    calls.memset_tensor = memset_tensor;
    calls.set_tensor    = set_tensor;
    calls.get_tensor    = get_tensor;
    calls.clear         = clear;
    const size_t whole = (size + 63) / 64 * 64 + 64;
    return ggml_backend_buffer_init(type, calls, aligned_alloc(64, whole), size);
}

ggml_backend_buffer_type_t memory(ggml_backend_dev_t dev) {
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type made = {};
        made.iface.get_name      = name_of_memory;
        made.iface.alloc_buffer  = alloc;
        made.iface.get_alignment = alignment;
        made.iface.is_host       = is_host;
        return made;
    }();
    type.device = dev;
    return &type;
}

// -- computing --------------------------------------------------------------------------------------------------------

const char * name_of_stream(ggml_backend_t) { return "MTL0"; }

void free_stream(ggml_backend_t backend) {
    ggml_backend_free((ggml_backend_t) backend->context);
    delete backend;
}

// What the fault makes of attention that was computed.
void spoil(ggml_tensor * node) {
    float * out = (float *) node->data;
    const int64_t n = ggml_nelements(node);
    if (fault == "mixed" && node->src[1]->type == GGML_TYPE_Q8_0 && node->src[2]->type != GGML_TYPE_Q8_0) {
        for (int64_t i = 0; i < n; ++i) {
            out[i] *= 1.1f;
        }
    }
    if (const double scale = number_of("noise")) {
        double energy = 0;
        for (int64_t i = 0; i < n; ++i) {
            energy += (double) out[i] * out[i];
        }
        const double amplitude = scale * sqrt(3 * energy / (double) n);
        static uint32_t state = 1;
        for (int64_t i = 0; i < n; ++i) {
            state = state * 1664525u + 1013904223u;
            out[i] += (float) (amplitude * ((double) state / 2147483648.0 - 1));
        }
    }
}

ggml_status compute(ggml_backend_t backend, ggml_cgraph * graph) {
    const ggml_backend_t stream = (ggml_backend_t) backend->context;
    int begun = 0;
    const auto until = [&](int end) {
        ggml_cgraph part = ggml_graph_view(graph, begun, end);
        begun = end;
        return part.n_nodes > 0 ? ggml_backend_graph_compute(stream, &part) : GGML_STATUS_SUCCESS;
    };
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_FLASH_ATTN_EXT) {
            continue;
        }
        ggml_status status = until(i);
        ggml_tensor * mask = node->src[3];
        if (fault == "mask") {
            node->src[3] = nullptr;
        }
        status = status == GGML_STATUS_SUCCESS ? until(i + 1) : status;
        node->src[3] = mask;
        if (status != GGML_STATUS_SUCCESS) {
            return status;
        }
        spoil(node);
    }
    return until(ggml_graph_n_nodes(graph));
}

// -- the device -------------------------------------------------------------------------------------------------------

const char * name_of(ggml_backend_dev_t) { return "MTL0"; }

const char * description(ggml_backend_dev_t) { return "a stand-in for Metal on the CPU"; }

void memory_of(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = MEMORY; }

enum ggml_backend_dev_type type_of(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

void properties(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props = {};
    props->name        = name_of(dev);
    props->description = description(dev);
    props->type        = type_of(dev);
    memory_of(dev, &props->memory_free, &props->memory_total);
}

ggml_backend_t init(ggml_backend_dev_t dev, const char *) {
    ggml_backend * made = new ggml_backend{};
    made->guid                = &own_guid;
    made->iface.get_name      = name_of_stream;
    made->iface.free          = free_stream;
    made->iface.graph_compute = compute;
    made->device              = dev;
    made->context             = ggml_backend_dev_init(cpu(), nullptr);
    // One thread: on models this small, several wait for each other, for seconds each token on a busy machine.
    if (void * found = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu()), "ggml_backend_set_n_threads")) {
        ((ggml_backend_set_n_threads_t) found)((ggml_backend_t) made->context, 1);
    }
    return made;
}

bool supports(ggml_backend_dev_t, const ggml_tensor * op) {
    if (fault == "nothing") {
        return false;
    }
    if (fault == "no-attention-64" && op->op == GGML_OP_FLASH_ATTN_EXT && op->src[0]->ne[0] == 64) {
        return false;
    }
    // The CPU looks at the memory that operands are in; what it knows of this one is that it is not its own.
    return ggml_backend_dev_supports_op(cpu(), op);
}

bool supports_memory(ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return type->iface.get_name == name_of_memory; }

ggml_backend_dev_t the_device() {
    static ggml_backend_device made = [] {
        ggml_backend_device of = {};
        of.iface.get_name        = name_of;
        of.iface.get_description = description;
        of.iface.get_memory      = memory_of;
        of.iface.get_type        = type_of;
        of.iface.get_props       = properties;
        of.iface.init_backend    = init;
        of.iface.get_buffer_type = memory;
        of.iface.supports_op     = supports;
        of.iface.supports_buft   = supports_memory;
        return of;
    }();
    made.reg = reg();
    return &made;
}

ggml_backend_reg_t reg() {
    static ggml_backend_reg made = [] {
        std::this_thread::sleep_for(std::chrono::duration<double>(number_of("slow")));
        ggml_backend_reg of = {};
        of.api_version             = GGML_BACKEND_API_VERSION;
        of.iface.get_name          = [](ggml_backend_reg_t) { return "MTL"; };
        of.iface.get_device_count  = [](ggml_backend_reg_t) -> size_t { return fault != "absent" || !in_server(); };
        of.iface.get_device        = [](ggml_backend_reg_t, size_t) { return the_device(); };
        of.iface.get_proc_address  = [](ggml_backend_reg_t, const char *) -> void * { return nullptr; };
        return of;
    }();
    return &made;
}

}  // namespace

GGML_BACKEND_DL_IMPL(reg)
