#ifndef TURBOQUANT_STUB_INTTYPES_H
#define TURBOQUANT_STUB_INTTYPES_H
#include <stddef.h>
#include <stdint.h>
#endif
