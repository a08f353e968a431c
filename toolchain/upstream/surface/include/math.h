#ifndef TURBOQUANT_STUB_MATH_H
#define TURBOQUANT_STUB_MATH_H
#include <stddef.h>
#include <stdint.h>
#endif
