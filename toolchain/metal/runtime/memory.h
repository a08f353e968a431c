// Every load and store of a kernel passes here: counted by address space, held against the bounds, and, in threadgroup
// memory, against what other lanes did to the same byte since the last barrier.
#pragma once
#include "state.h"

#ifdef __APPLE__
#include <mach-o/ldsyms.h>
#include <mach-o/loader.h>
extern char msl_statics_begin[] __asm("section$start$__DATA$msl_threadgroup");
extern char msl_statics_end[] __asm("section$end$__DATA$msl_threadgroup");
#else
extern "C" char __start_msl_threadgroup[] __attribute__((weak));
extern "C" char __stop_msl_threadgroup[] __attribute__((weak));
#define msl_statics_begin __start_msl_threadgroup
#define msl_statics_end __stop_msl_threadgroup
extern "C" char __executable_start[];
extern "C" char _end[];
#endif

enum { GAP = 256, ARENA = 128 * 1024, VARIABLES = 1000 /* a variable's number, where others have an argument's */ };

struct Access {
    uint32_t epoch, simd_epoch, met;
    int site;
    int lane;
};
struct Cell {
    Access written, read[2];
};

inline char *arena;          // the [[threadgroup(n)]] arguments, with gaps between
inline uint32_t arena_start[MSL_BUFFERS], arena_size[MSL_BUFFERS];
inline Cell *cells;          // one for each byte of the arena and of the static threadgroup variables
inline uint32_t epoch = 1;   // counts barriers that order threadgroup memory, over all threadgroups of a worker
inline uint32_t first_epoch; // of the current threadgroup
inline uint32_t simd_epoch[MAX_SIMDGROUPS]; // barriers of a SIMD-group
inline uint32_t met[MAX_SIMDGROUPS];        // all meetings of one
inline uintptr_t image_begin, image_end;
inline uint32_t *last_read[MSL_BUFFERS]; // for each byte of a buffer the `first_epoch` of the threadgroup that read it last

// A write that meets another lane's access; a race only if it changes what is there.
struct Suspect {
    bool open;
    int kind, lane, site, other_lane, other_site, other_write, size, index;
    long offset;
    const char *at;
    char before[64];
};
inline Suspect suspect;

inline size_t statics_size() { return (size_t)(msl_statics_end - msl_statics_begin); }

inline void settle() {
    suspect.open = false;
    if (memcmp(suspect.before, suspect.at, (size_t)suspect.size) == 0) return;
    Finding *found = report(suspect.kind, suspect.site, suspect.other_site);
    if (!found) return;
    found->lane = suspect.lane;
    found->other_lane = suspect.other_lane;
    found->place = THREADGROUP;
    found->index = suspect.index;
    found->offset = suspect.offset;
    found->size = suspect.size;
    found->write = 1;
    found->other_write = suspect.other_write;
}

// Whether nothing but luck orders that access and one made now.
inline bool unordered(const Access &that) {
    if (that.epoch != epoch || that.lane == lane->index) return false;
    int mine = lane->index / WIDTH;
    return that.lane / WIDTH != mine || that.simd_epoch == simd_epoch[mine];
}

inline void race(const Access &that, int that_write, int write, int index, long offset, int size, uintptr_t at, int where) {
    // Lanes of one SIMD-group run in step. No rule of the language promises it, but where a write follows a read, or lanes
    // have met in between, every GPU gets it right.
    int mine = lane->index / WIDTH;
    bool in_step = that.lane / WIDTH == mine && ((write && !that_write) || that.met != met[mine]);
    int kind = in_step ? LOCKSTEP : RACE;
    if (write) {
        if (suspect.open || size > (int)sizeof suspect.before) return;
        suspect = {true, kind, lane->index, where, that.lane, that.site, that_write, size, index, offset, (const char *)at, {}};
        memcpy(suspect.before, (const void *)at, (size_t)size);
        return;
    }
    Finding *found = report(kind, where, that.site);
    if (!found) return;
    found->other_lane = that.lane;
    found->place = THREADGROUP;
    found->index = index;
    found->offset = offset;
    found->size = size;
    found->other_write = that_write;
}

inline void threadgroup_access(Cell *cell, int index, long offset, int size, int write, uintptr_t at, int where) {
    int mine = lane->index / WIDTH;
    Access now = {epoch, simd_epoch[mine], met[mine], where, lane->index};
    bool told = false;
    for (int i = 0; i < size; i++) {
        Cell &c = cell[i];
        if (!told && unordered(c.written)) {
            race(c.written, 1, write, index, offset, size, at, where);
            told = true;
        }
        if (write) {
            for (int r = 0; r < 2 && !told; r++)
                if (unordered(c.read[r])) {
                    race(c.read[r], 0, write, index, offset, size, at, where);
                    told = true;
                }
            c.written = now;
        } else {
            if (c.written.epoch < first_epoch && !told) {
                told = true;
                if (Finding *found = report(UNINITIALISED, where)) {
                    found->place = THREADGROUP;
                    found->index = index;
                    found->offset = offset + i;
                    found->size = size;
                }
            }
            // Two readers of different lanes are enough: whoever writes next differs from one of them.
            if (c.read[0].epoch != epoch || c.read[0].lane == now.lane) c.read[0] = now;
            else c.read[1] = now;
        }
    }
}

// Lanes of a SIMD-group run in step on a GPU. Here they come to each access together, those further back first.
inline void keep_step(int where) {
    if (lane->state != READY) return; // a matrix is moved for all lanes at once
    lane->state = PAUSED;
    lane->site = where;
    lane->fibre.pause();
    site = where;
}

inline void outside(uintptr_t at, int size, int write, int where, int place, int index, long offset, long length) {
    Finding *found = report(OUT_OF_BOUNDS, where, write);
    if (!found) return;
    found->place = place;
    found->index = index;
    found->offset = offset;
    found->length = length;
    found->size = size;
    found->write = write;
    found->detail = (int)(at == 0);
}

inline void count(Traffic &traffic, long size, int write, int atomic) {
    if (atomic) {
        traffic.atomics++;
    } else if (write) {
        traffic.stores++;
        traffic.store_bytes += (uint64_t)size;
    } else {
        traffic.loads++;
        traffic.load_bytes += (uint64_t)size;
    }
}

inline void buffer_access(int index, long offset, long size, int write, int atomic) {
    BufferTraffic &traffic = outcome->buffer[index];
    count(traffic.all, size, write, atomic);
    if (write || atomic) return;
    for (long i = offset; i < offset + size; i++) {
        traffic.read_once += last_read[index][i] != first_epoch;
        last_read[index][i] = first_epoch;
    }
}

inline void access(uintptr_t at, long size, int write, int where, int atomic = 0) {
    if (suspect.open) settle();
    site = where;
    int place = NOWHERE;
    if (lane->fibre.holds(at)) {
        place = THREAD;
    } else if (at - (uintptr_t)arena < ARENA) {
        place = THREADGROUP;
        keep_step(where);
        long offset = (long)(at - (uintptr_t)arena);
        int index = 0, nearest = -1;
        for (; index < MSL_BUFFERS; index++) {
            if (!arena_size[index]) continue;
            if (offset >= arena_start[index] - GAP / 2) nearest = index;
            if (offset >= arena_start[index] && offset + size <= arena_start[index] + arena_size[index]) break;
        }
        if (index == MSL_BUFFERS)
            outside(at, (int)size, write, where, THREADGROUP, nearest, nearest < 0 ? offset : offset - arena_start[nearest],
                    nearest < 0 ? 0 : arena_size[nearest]);
        else
            threadgroup_access(cells + offset, index, offset - arena_start[index], (int)size, write, at, where);
    } else if (at - (uintptr_t)msl_statics_begin < statics_size()) {
        place = THREADGROUP;
        keep_step(where);
        long offset = (long)(at - (uintptr_t)msl_statics_begin);
        int index = 0;
        for (; index < msl_variable_count; index++)
            if (at - (uintptr_t)msl_variables[index].at < msl_variables[index].size) break;
        long inside = index < msl_variable_count ? (long)(at - (uintptr_t)msl_variables[index].at) : 0;
        if (index == msl_variable_count || (uint64_t)(inside + size) > msl_variables[index].size)
            outside(at, (int)size, write, where, THREADGROUP, -1, inside, 0);
        else
            threadgroup_access(cells + ARENA + offset, VARIABLES + index, inside, (int)size, write, at, where);
    } else if (at - (uintptr_t)lanes < sizeof lanes || at - (uintptr_t)buffers < sizeof buffers ||
               at - (uintptr_t)threadgroups < sizeof threadgroups) {
        return; // how the arguments reach the kernel is the harness's own affair
    } else {
        static int last = 0;
        for (int tries = 0, index = last; tries < MSL_BUFFERS; tries++, index = index + 1 < MSL_BUFFERS ? index + 1 : 0) {
            uintptr_t begin = (uintptr_t)buffers[index];
            if (!begin || at - begin >= request->buffers[index].size) continue;
            if (at - begin + (uintptr_t)size > request->buffers[index].size) break;
            place = request->buffers[index].constant ? CONSTANT : DEVICE;
            last = index;
            buffer_access(index, (long)(at - begin), size, write, atomic);
            break;
        }
        if (place == NOWHERE && at - image_begin < image_end - image_begin) place = CONSTANT;
        if (place == NOWHERE) {
            int nearest = -1;
            long best = 1l << 40;
            for (int index = 0; index < MSL_BUFFERS; index++) {
                if (!buffers[index]) continue;
                long from = (long)(at - (uintptr_t)buffers[index]), past = from - (long)request->buffers[index].size;
                long far = past >= 0 ? past : from < 0 ? -from : 0;
                if (far < best) best = far, nearest = index;
            }
            if (best > 1 << 24) nearest = -1;
            outside(at, (int)size, write, where, DEVICE, nearest,
                    nearest < 0 ? (long)at : (long)(at - (uintptr_t)buffers[nearest]),
                    nearest < 0 ? 0 : (long)request->buffers[nearest].size);
            place = DEVICE;
        }
    }
    count(outcome->traffic[place], size, write, atomic);
}

extern "C" void msl_read(const void *at, long size, int where) { access((uintptr_t)at, size, 0, where); }
extern "C" void msl_write(const void *at, long size, int where) { access((uintptr_t)at, size, 1, where); }
// Atomics race with nobody; they initialise what they touch.
extern "C" void msl_atomic(const void *at, long size, int where) {
    uintptr_t a = (uintptr_t)at;
    if (a - (uintptr_t)arena < ARENA || a - (uintptr_t)msl_statics_begin < statics_size()) {
        if (suspect.open) settle();
        site = where;
        outcome->traffic[THREADGROUP].atomics++;
        return;
    }
    access(a, size, 0, where, 1);
}

extern "C" void msl_divisor(uint64_t divisor, int where) {
    if (divisor) return;
    site = where;
    report(DIVISION, where);
    outcome->stopped = 1;
    _exit(3);
}

// Lays the threadgroup arguments out.
inline void lay_out_threadgroups() {
    uint32_t at = GAP;
    for (int i = 0; i < MSL_BUFFERS; i++) {
        uint32_t size = request->threadgroups[i];
        if (!size) continue;
        arena_start[i] = at;
        arena_size[i] = size;
        at += (size + 2 * GAP - 1) / GAP * GAP;
    }
    arena = (char *)mmap(nullptr, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    size_t bytes = (ARENA + statics_size()) * sizeof(Cell);
    cells = (Cell *)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    for (int i = 0; i < MSL_BUFFERS; i++) threadgroups[i] = arena_size[i] ? arena + arena_start[i] : nullptr;
#ifdef __APPLE__
    image_begin = (uintptr_t)&_mh_execute_header;
    const char *command = (const char *)(&_mh_execute_header + 1);
    uintptr_t text = 0, end = 0;
    for (uint32_t i = 0; i < _mh_execute_header.ncmds; i++, command += ((const load_command *)command)->cmdsize) {
        const segment_command_64 *segment = (const segment_command_64 *)command;
        if (segment->cmd != LC_SEGMENT_64) continue;
        if (!strcmp(segment->segname, SEG_TEXT)) text = segment->vmaddr;
        if (segment->vmaddr + segment->vmsize > end) end = segment->vmaddr + segment->vmsize;
    }
    image_end = image_begin + (end - text);
#else
    image_begin = (uintptr_t)__executable_start;
    image_end = (uintptr_t)_end;
#endif
}

// A worker's own record of what its threadgroups read; pages that nobody touches take no memory.
inline void lay_out_reads() {
    for (int i = 0; i < MSL_BUFFERS; i++)
        if (request->buffers[i].bound)
            last_read[i] = (uint32_t *)mmap(nullptr, request->buffers[i].size * 4 + 4, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANON, -1, 0);
}

inline void begin_group_memory() {
    // All ones are a NaN in every floating type: what is read without having been written shows in the result, too.
    memset(arena, 0xff, ARENA);
    if (statics_size()) memset(msl_statics_begin, 0xff, statics_size());
    first_epoch = ++epoch;
}
