// What the library says.
#pragma once

#include <cstdio>

#define LLAMA_LOG_INFO(...) fprintf(stderr, __VA_ARGS__)
#define LLAMA_LOG_WARN(...) fprintf(stderr, __VA_ARGS__)
#define LLAMA_LOG_ERROR(...) fprintf(stderr, __VA_ARGS__)
