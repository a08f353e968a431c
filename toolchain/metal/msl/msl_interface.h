// What compiled kernels and the executor (runtime/executor.cpp) share. Plain C types: neither side sees the other's.
#pragma once

// The last argument of every call below; instrument.py writes the number of the caller's source line in its place.
#define MSL_SITE (-99)

enum msl_kind {
    MSL_REDUCE, MSL_PREFIX_INCLUSIVE, MSL_PREFIX_EXCLUSIVE, MSL_SHUFFLE, MSL_SHUFFLE_XOR, MSL_SHUFFLE_DOWN,
    MSL_SHUFFLE_UP, MSL_ROTATE_DOWN, MSL_ROTATE_UP, MSL_BROADCAST_FIRST, MSL_BALLOT, MSL_MULTIPLY, MSL_LOAD, MSL_STORE,
    MSL_SIMDGROUP_BARRIER, MSL_THREADGROUP_BARRIER
};
enum msl_op { MSL_SUM, MSL_PRODUCT, MSL_MIN, MSL_MAX, MSL_AND, MSL_OR, MSL_XOR };
enum { MSL_BUFFERS = 31 };

struct msl_thread {
    unsigned thread_position_in_grid[3], threadgroup_position_in_grid[3], thread_position_in_threadgroup[3];
    unsigned threads_per_threadgroup[3], threadgroups_per_grid[3], threads_per_grid[3];
    unsigned thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
    unsigned simdgroups_per_threadgroup, threads_per_simdgroup;
    void *const *buffers;
    void *const *threadgroups;
};

enum msl_space { MSL_BUFFER, MSL_CONSTANT_BUFFER, MSL_THREADGROUP_ARGUMENT };
struct msl_parameter {
    enum msl_space space;
    int index;
    unsigned long size; // bytes of what it points to
    int whole;          // a reference: the buffer must hold all of it
    int writable;
    const char *name;
};
struct msl_kernel {
    const char *name;
    void (*run)(const struct msl_thread *);
    const struct msl_parameter *parameters;
    int count;
};
struct msl_constant {
    int id;
    unsigned long size;
    int code; // of its type
    const char *name;
    void *value;
    unsigned char *defined;
};

// Convergent, as on a GPU: loops around them may be unrolled, but no copy of one may come under another condition.
#define MSL_COLLECTIVE __attribute__((convergent))
extern "C" {
MSL_COLLECTIVE void msl_exchange(int kind, int op, int code, int count, void *inout, int argument, int site);
MSL_COLLECTIVE void msl_multiply(int codes, void *d, const void *a, const void *b, const void *c, int site);
MSL_COLLECTIVE void msl_move(int kind, int size, void *own, void *memory, long stride, int flip, int site);
MSL_COLLECTIVE void msl_barrier(int kind, int flags, int site);
}
