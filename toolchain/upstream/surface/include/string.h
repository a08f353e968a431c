#ifndef TURBOQUANT_STUB_STRING_H
#define TURBOQUANT_STUB_STRING_H
#include <stddef.h>
#include <stdint.h>
#endif
