// Owners of what ggml makes.
#pragma once

#include "ggml-alloc.h"

#include <memory>

struct ggml_context_deleter        { void operator()(ggml_context * ctx) { ggml_free(ctx); } };
struct ggml_backend_buffer_deleter { void operator()(ggml_backend_buffer_t buffer) { ggml_backend_buffer_free(buffer); } };

using ggml_context_ptr        = std::unique_ptr<ggml_context, ggml_context_deleter>;
using ggml_backend_buffer_ptr = std::unique_ptr<ggml_backend_buffer, ggml_backend_buffer_deleter>;
