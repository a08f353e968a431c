// What one dispatch consists of: its request, its lanes, and what is shared with the process that asked for it.
#pragma once
#include <stdint.h>
#include <string.h>

#include "../msl/msl_interface.h"
#include "fibre.h"

enum { WIDTH = 32, MAX_LANES = 1024, MAX_SIMDGROUPS = MAX_LANES / WIDTH, MAX_FINDINGS = 64 };

// The file that library.py writes: this, then the buffers, each between gaps that belong to nobody.
struct Request {
    uint64_t magic;
    uint32_t kernel, constants, workers, milliseconds;
    uint32_t groups[3], threads[3];
    struct {
        uint64_t offset, size;
        uint32_t bound, constant;
    } buffers[MSL_BUFFERS];
    uint32_t threadgroups[MSL_BUFFERS], padding;
    struct {
        uint32_t id, size;
        unsigned char value[16];
    } values[256];
};

enum FindingKind {
    OUT_OF_BOUNDS, UNINITIALISED, RACE, DIVERGENCE, BARRIER_NOT_MET, TIME_LIMIT, CRASH, LOCKSTEP, DIVISION
};
enum Place { DEVICE, CONSTANT, THREADGROUP, THREAD, NOWHERE };

struct Finding {
    int kind, site, other_site, lane, other_lane, place, index, size, write, other_write, detail, other_detail;
    long offset, length;
    uint64_t count;
    uint32_t group[3];
    uint32_t waiting[MAX_SIMDGROUPS], others[MAX_SIMDGROUPS];
};

struct Traffic {
    uint64_t loads, load_bytes, stores, store_bytes, atomics;
};
// `read_once`: bytes that were loaded, each counted once for a threadgroup, however often its lanes load it.
struct BufferTraffic {
    Traffic all;
    uint64_t read_once;
};

// One for each worker, in memory that survives it.
struct Outcome {
    Traffic traffic[NOWHERE];
    BufferTraffic buffer[MSL_BUFFERS];
    uint64_t met[MSL_THREADGROUP_BARRIER + 1];
    uint64_t threads;
    uint32_t findings, stopped;
    Finding finding[MAX_FINDINGS];
};

// PAUSED: about to touch threadgroup memory, and waiting for the rest of its SIMD-group to come as far.
enum LaneState { READY, PAUSED, WAITING, ENDED };
struct Lane {
    Fibre fibre;
    LaneState state;
    int index;
    msl_thread thread;
    // what it waits for
    int kind, op, code, count, argument, site;
    void *own, *memory;
    const void *a, *b, *c;
    long stride;
};

inline Request *request;
inline Outcome *outcome;
inline Lane lanes[MAX_LANES];
inline Lane *lane; // the one that runs
inline int lane_count, simdgroup_count;
inline int site; // where it last was
inline uint32_t group[3];
inline void *buffers[MSL_BUFFERS];
inline void *threadgroups[MSL_BUFFERS];

extern "C" const msl_kernel msl_kernels[];
extern "C" const int msl_kernel_count;
extern "C" const msl_constant msl_constants[];
extern "C" const int msl_constant_count;
extern "C" const struct { char *at; uint64_t size; } msl_variables[];
extern "C" const int msl_variable_count;
extern "C" const int msl_ranks[];
extern "C" uint64_t msl_blocks[];
extern "C" const int msl_block_count;

// The finding to fill in: the earlier one where the same thing was seen at the same place, counted once more.
inline Finding *report(int kind, int where, int other = -1) {
    for (uint32_t i = 0; i < outcome->findings; i++) {
        Finding *old = &outcome->finding[i];
        if (old->kind == kind && old->site == where && old->other_site == other) {
            old->count++;
            return nullptr;
        }
    }
    if (outcome->findings == MAX_FINDINGS) return nullptr;
    Finding *found = &outcome->finding[outcome->findings++];
    memset(found, 0, sizeof *found);
    found->kind = kind;
    found->site = where;
    found->other_site = other;
    found->lane = lane ? lane->index : -1;
    found->other_lane = -1;
    found->place = NOWHERE;
    found->count = 1;
    memcpy(found->group, group, sizeof group);
    return found;
}

inline void mark(uint32_t *mask, int index) { mask[index / 32] |= 1u << index % 32; }
