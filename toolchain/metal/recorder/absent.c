// Functions of ggml that the host code of the Metal backend refers to, and none of the recorded operations calls.
#include <stdio.h>
#include <stdlib.h>

#define ABSENT(name)                                                                                                   \
    void name(void) {                                                                                                  \
        fprintf(stderr, "%s was called, which the recorder does not have\n", #name);                                   \
        exit(3);                                                                                                       \
    }

ABSENT(ggml_backend_buffer_get_usage)
ABSENT(ggml_backend_tensor_memset)
ABSENT(ggml_backend_tensor_set)
