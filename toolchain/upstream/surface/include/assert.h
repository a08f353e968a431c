#ifndef TURBOQUANT_STUB_ASSERT_H
#define TURBOQUANT_STUB_ASSERT_H
#include <stddef.h>
#include <stdint.h>
#endif
