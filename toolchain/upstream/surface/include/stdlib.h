#ifndef TURBOQUANT_STUB_STDLIB_H
#define TURBOQUANT_STUB_STDLIB_H
#include <stddef.h>
#include <stdint.h>
#endif
