#ifndef TURBOQUANT_STUB_STDIO_H
#define TURBOQUANT_STUB_STDIO_H
#include <stddef.h>
typedef struct {
    int inside;
} FILE;
#endif
