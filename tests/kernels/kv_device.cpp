// Makes the cache of a model with two layers, K and V of the types (with rules) that are asked for, and says nothing
// itself: the log of the cache does. With a third word it asks whether the device holds such a cache without flash
// attention; another one asks for the calibration of keys of a plain model, and `cap`, `sinks`, `latent` or `rope` of
// such a one, or one that turns other pairs.

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "llama-kv-cache.h"
#include "llama-kv-device.h"
#include "llama-kv-layers.h"
#include "llama-kv-calibration.h"
#include "llama-model.h"

#include <cstdio>
#include <stdexcept>
#include <string>

static llama_kv_type type_of(const char * text) {
    return llama_kv_type_from_str(text, {
        GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_TURBO4, GGML_TYPE_TURBO3, GGML_TYPE_TURBO2,
    });
}

// Why a model whose norms are ones has no calibration of the keys of its layer, one head of 64.
static void refused(const std::string & what) {
    float       one  = 1.0f;
    ggml_tensor norm = ggml_rows(GGML_TYPE_F32, 1, 1, &one);
    const auto  ctx  = ggml_context_ptr(ggml_init({ 2 * ggml_tensor_overhead(), nullptr, true }));
    const auto  k    = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_Q8_0, 64, 1);
    const auto  buffer = ggml_backend_buffer_ptr(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), ggml_backend_cpu_buffer_type()));
    const auto  type = what == "rope" ? LLAMA_ROPE_TYPE_NEOX : LLAMA_ROPE_TYPE_NORM;
    const auto  weight = [&](const std::string & name) { return what != "sinks" && name.find("sinks") < name.size() ? nullptr : &norm; };
    try {
        llama_kv_calibration::make({ weight, type, what == "cap", what == "latent", false }, { { 0, 64, 64, k } }, 0);
    } catch (const std::runtime_error & error) {
        fprintf(stderr, "%s\n", error.what());
    }
}

int main(int argc, char ** argv) {
    llama_model     model;
    llama_hparams & hparams = model.hparams;
    hparams.n_layer_all = 2;
    hparams.n_head      = 2;
    hparams.n_head_kv   = 1;
    hparams.n_embd_head = 64;
    hparams.attends     = { true, true };
    const llama_kv_type         k = type_of(argv[1]), v = type_of(argv[2]);
    if (argc > 3 && std::string(argv[3]) != "transposed") {
        refused(argv[3]);
        return 0;
    }
    if (argc > 3) {
        const bool holds = llama_kv_device_holds(ggml_backend_dev_get(1), k.type, v.type, 64, 64, true);
        fprintf(stderr, "%s\n", holds ? "holds it" : "does not");
        return 0;
    }
    const llama_kv_layers_scope layers(k.type, k.layers, v.type, v.layers);
    llama_kv_cache(model, k.type, v.type, 256, 0, nullptr);
    return 0;
}
