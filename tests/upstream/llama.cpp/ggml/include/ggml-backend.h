// A processor as a device that computes one operation at a time. With MINIATURE_GPU in the environment there is a second
// device, which computes nothing; it says no to the types that the variable names, or to attention of `prompts`, or to `products`.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ggml_backend_device * ggml_backend_dev_t;
typedef struct ggml_backend *        ggml_backend_t;
typedef struct ggml_backend_buffer * ggml_backend_buffer_t;
typedef struct ggml_backend_buffer_type * ggml_backend_buffer_type_t;

enum ggml_backend_dev_type { GGML_BACKEND_DEVICE_TYPE_CPU, GGML_BACKEND_DEVICE_TYPE_GPU };
enum ggml_status { GGML_STATUS_SUCCESS };

// Devices. `params` of the first stream of work on one is NULL.
GGML_API void                       ggml_backend_load_all(void);
GGML_API size_t                     ggml_backend_dev_count(void);
GGML_API ggml_backend_dev_t         ggml_backend_dev_get(size_t number);
GGML_API const char *               ggml_backend_dev_name(ggml_backend_dev_t device);
GGML_API enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t device);
GGML_API bool                       ggml_backend_dev_supports_op(ggml_backend_dev_t device, const struct ggml_tensor * op);
GGML_API ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t device);
GGML_API ggml_backend_buffer_type_t ggml_backend_cpu_buffer_type(void);
GGML_API ggml_backend_t             ggml_backend_dev_init(ggml_backend_dev_t device, const char * params);
GGML_API void                       ggml_backend_free(ggml_backend_t backend);

// Memory, and the way in and out of it.
GGML_API void ggml_backend_buffer_free(ggml_backend_buffer_t buffer);
GGML_API ggml_backend_buffer_type_t ggml_backend_buffer_get_type(ggml_backend_buffer_t buffer);
GGML_API void ggml_backend_tensor_set(struct ggml_tensor * tensor, const void * data, size_t offset, size_t size);
GGML_API void ggml_backend_tensor_get(const struct ggml_tensor * tensor, void * data, size_t offset, size_t size);

GGML_API enum ggml_status ggml_backend_graph_compute(ggml_backend_t backend, struct ggml_cgraph * graph);

#ifdef __cplusplus
}
#endif
