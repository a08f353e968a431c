// Runs one dispatch of a compiled library: `program --list`, or `program REQUEST`; the result is JSON on stdout.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "collectives.h"

static const msl_kernel *kernel;

// -- what a lane does ---------------------------------------------------------------------------------------------------

static void wait_here(int kind, int where) {
    if (suspect.open) settle();
    lane->kind = kind;
    lane->site = site = where;
    lane->state = WAITING;
    lane->fibre.pause();
}

extern "C" void msl_exchange(int kind, int op, int code, int count, void *inout, int argument, int where) {
    lane->op = op, lane->code = code, lane->count = count, lane->own = inout, lane->argument = argument;
    wait_here(kind, where);
}
extern "C" void msl_multiply(int codes, void *d, const void *a, const void *b, const void *c, int where) {
    lane->code = codes, lane->own = d, lane->a = a, lane->b = b, lane->c = c;
    wait_here(MSL_MULTIPLY, where);
}
extern "C" void msl_move(int kind, int size, void *own, void *memory, long stride, int flip, int where) {
    lane->code = size, lane->own = own, lane->memory = memory, lane->stride = stride, lane->argument = flip;
    wait_here(kind, where);
}
extern "C" void msl_barrier(int kind, int flags, int where) {
    lane->argument = flags;
    wait_here(kind, where);
}

static void run_lane() {
    kernel->run(&lane->thread);
    if (suspect.open) settle();
    lane->state = ENDED;
    lane->fibre.pause();
}

// The sanitizer's attribute keeps the optimiser from making up loads; its runtime is not wanted.
extern "C" void __tsan_init() {}
// For libraries of compiler support that lack them.
extern "C" __attribute__((weak)) unsigned short msl_to_bfloat(float x) __asm__(MSL_BFLOAT);
unsigned short msl_to_bfloat(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return (unsigned short)(bits >> 16 | 64);
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// -- scheduling ---------------------------------------------------------------------------------------------------------

static bool at_barrier(const Lane &l) { return l.state == WAITING && l.kind == MSL_THREADGROUP_BARRIER; }
static bool same(const Lane &a, const Lane &b) { return a.kind == b.kind && a.site == b.site; }

// Names those that wait with `with` and those that wait elsewhere.
static void divergence(const Lane &with, const Lane &other, int begin, int end) {
    Finding *found = report(DIVERGENCE, with.site, other.site);
    if (!found) return;
    found->lane = with.index;
    found->detail = with.kind;
    found->other_detail = other.kind;
    for (int i = begin; i < end; i++)
        if (lanes[i].state == WAITING) mark(same(lanes[i], with) ? found->waiting : found->others, i);
}

// Runs the lanes of a SIMD-group until every one has ended or waits at a barrier of the threadgroup.
static void run_simdgroup(int begin, int end) {
    for (;;) {
        for (int i = begin; i < end; i++)
            if (lanes[i].state == READY) {
                lane = &lanes[i];
                lane->fibre.resume();
            }
        int rank = -1;
        for (int i = begin; i < end; i++)
            if (lanes[i].state == PAUSED && (rank < 0 || msl_ranks[lanes[i].site] < rank)) rank = msl_ranks[lanes[i].site];
        for (int i = begin; i < end; i++)
            if (lanes[i].state == PAUSED && msl_ranks[lanes[i].site] == rank) lanes[i].state = READY;
        if (rank >= 0) continue;
        const Lane *first = nullptr, *odd = nullptr;
        for (int i = begin; i < end; i++) {
            if (lanes[i].state != WAITING || at_barrier(lanes[i])) continue;
            if (!first) first = &lanes[i];
        }
        if (!first) return;
        Lane *who[WIDTH];
        int n = 0;
        for (int i = begin; i < end; i++) {
            if (lanes[i].state == WAITING && same(lanes[i], *first)) who[n++] = &lanes[i];
            else if (lanes[i].state == WAITING && !odd) odd = &lanes[i];
        }
        if (odd) {
            divergence(*first, *odd, begin, end);
        } else if (n < end - begin && first->kind >= MSL_MULTIPLY && first->kind <= MSL_STORE) {
            // MSL lets ended lanes miss a reduction or a shuffle, but a matrix needs all of them
            if (Finding *found = report(DIVERGENCE, first->site)) {
                found->detail = found->other_detail = first->kind;
                for (int i = 0; i < n; i++) mark(found->waiting, who[i]->index);
            }
        }
        meet(who, n);
        for (int i = 0; i < n; i++) who[i]->state = READY;
    }
}

// False when lanes wait at a barrier that others will never reach.
static bool run_group() {
    begin_group_memory();
    for (int i = 0; i < lane_count; i++) {
        Lane &l = lanes[i];
        l.state = READY;
        for (int d = 0; d < 3; d++) {
            l.thread.threadgroup_position_in_grid[d] = group[d];
            l.thread.thread_position_in_grid[d] =
                group[d] * request->threads[d] + l.thread.thread_position_in_threadgroup[d];
        }
        l.fibre.start(run_lane);
    }
    for (;;) {
        for (int s = 0; s < simdgroup_count; s++) {
            int end = (s + 1) * WIDTH < lane_count ? (s + 1) * WIDTH : lane_count;
            run_simdgroup(s * WIDTH, end);
        }
        Lane *first = nullptr, *odd = nullptr;
        int waiting = 0;
        for (int i = 0; i < lane_count; i++) {
            if (lanes[i].state != WAITING) continue;
            waiting++;
            if (!first) first = &lanes[i];
            else if (!odd && !same(lanes[i], *first)) odd = &lanes[i];
        }
        if (!waiting) return true;
        if (waiting < lane_count) {
            if (Finding *found = report(BARRIER_NOT_MET, first->site)) {
                found->lane = first->index;
                for (int i = 0; i < lane_count; i++) mark(lanes[i].state == WAITING ? found->waiting : found->others, i);
            }
            return false;
        }
        if (odd) divergence(*first, *odd, 0, lane_count);
        outcome->met[MSL_THREADGROUP_BARRIER]++;
        if (first->argument & 2) epoch++;
        for (int i = 0; i < lane_count; i++) lanes[i].state = READY;
    }
}

// -- a worker -----------------------------------------------------------------------------------------------------------

static void die(int number, siginfo_t *info, void *) {
    Finding *found = report(number == SIGVTALRM ? TIME_LIMIT : CRASH, site);
    if (found) {
        found->detail = number;
        found->other_detail = number == SIGSEGV && lane && (uintptr_t)info->si_addr - (uintptr_t)lane->fibre.stack < 65536;
        for (int i = 0; i < lane_count; i++)
            if (lanes[i].state == WAITING) mark(found->waiting, i);
    }
    outcome->stopped = 1;
    _exit(3);
}

static void watch() {
    static char other_stack[65536];
    stack_t stack = {};
    stack.ss_sp = other_stack;
    stack.ss_size = sizeof other_stack;
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = die;
    action.sa_flags = SA_ONSTACK | SA_SIGINFO;
    const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGVTALRM};
    for (int number : numbers) sigaction(number, &action, nullptr);
    // its own time, not the clock's: a busy machine is no reason to give up
    struct itimerval limit = {};
    limit.it_value.tv_sec = request->milliseconds / 1000;
    limit.it_value.tv_usec = request->milliseconds % 1000 * 1000;
    setitimer(ITIMER_VIRTUAL, &limit, nullptr);
}

static void work(uint64_t *next, uint64_t *blocks) {
    watch();
    const uint32_t *t = request->threads, *g = request->groups;
    for (int i = 0; i < lane_count; i++) {
        msl_thread &thread = lanes[i].thread;
        lanes[i].index = i;
        unsigned index = (unsigned)i;
        thread.thread_position_in_threadgroup[0] = index % t[0];
        thread.thread_position_in_threadgroup[1] = index / t[0] % t[1];
        thread.thread_position_in_threadgroup[2] = index / t[0] / t[1];
        for (int d = 0; d < 3; d++) {
            thread.threads_per_threadgroup[d] = t[d];
            thread.threadgroups_per_grid[d] = g[d];
            thread.threads_per_grid[d] = g[d] * t[d];
        }
        thread.thread_index_in_threadgroup = index;
        thread.thread_index_in_simdgroup = index % WIDTH;
        thread.simdgroup_index_in_threadgroup = index / WIDTH;
        thread.simdgroups_per_threadgroup = (unsigned)simdgroup_count;
        thread.threads_per_simdgroup = WIDTH;
        thread.buffers = buffers;
        thread.threadgroups = threadgroups;
    }
    lay_out_reads();
    uint64_t total = (uint64_t)g[0] * g[1] * g[2];
    for (uint64_t at; (at = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < total;) {
        group[0] = (uint32_t)(at % g[0]);
        group[1] = (uint32_t)(at / g[0] % g[1]);
        group[2] = (uint32_t)(at / g[0] / g[1]);
        outcome->threads += (uint64_t)lane_count;
        if (!run_group()) {
            outcome->stopped = 1;
            __atomic_store_n(next, total, __ATOMIC_RELAXED);
            break;
        }
    }
    for (int i = 0; i < msl_block_count; i++)
        if (msl_blocks[i]) __atomic_fetch_add(&blocks[i], msl_blocks[i], __ATOMIC_RELAXED);
}

// -- the process that was asked -----------------------------------------------------------------------------------------

static void list() {
    printf("{\"kernels\":[");
    for (int k = 0; k < msl_kernel_count; k++) {
        const msl_kernel &one = msl_kernels[k];
        printf("%s{\"name\":\"%s\",\"parameters\":[", k ? "," : "", one.name);
        for (int p = 0; p < one.count; p++) {
            const msl_parameter &parameter = one.parameters[p];
            printf("%s{\"name\":\"%s\",\"space\":%d,\"index\":%d,\"size\":%lu,\"whole\":%d,\"writable\":%d}", p ? "," : "",
                   parameter.name, parameter.space, parameter.index, parameter.size, parameter.whole, parameter.writable);
        }
        printf("]}");
    }
    printf("],\"constants\":[");
    for (int k = 0; k < msl_constant_count; k++) {
        const msl_constant &c = msl_constants[k];
        printf("%s{\"id\":%d,\"size\":%lu,\"code\":%d,\"name\":\"%s\"}", k ? "," : "", c.id, c.size, c.code, c.name);
    }
    printf("],\"variables\":[");
    for (int k = 0; k < msl_variable_count; k++) printf("%s%lu", k ? "," : "", (unsigned long)msl_variables[k].size);
    printf("]}\n");
}

static void print_mask(const char *name, const uint32_t *mask) {
    printf(",\"%s\":[", name);
    for (int i = 0, some = 0; i < MAX_LANES; i++)
        if (mask[i / 32] >> i % 32 & 1) printf("%s%d", some++ ? "," : "", i);
    printf("]");
}

static void print_finding(const Finding &f, int first) {
    printf("%s{\"kind\":%d,\"site\":%d,\"other_site\":%d,\"lane\":%d,\"other_lane\":%d,\"place\":%d,\"index\":%d,"
           "\"size\":%d,\"write\":%d,\"other_write\":%d,\"detail\":%d,\"other_detail\":%d,\"offset\":%ld,\"length\":%ld,"
           "\"count\":%llu,\"group\":[%u,%u,%u]",
           first ? "" : ",", f.kind, f.site, f.other_site, f.lane, f.other_lane, f.place, f.index, f.size, f.write,
           f.other_write, f.detail, f.other_detail, f.offset, f.length, (unsigned long long)f.count, f.group[0], f.group[1],
           f.group[2]);
    print_mask("waiting", f.waiting);
    print_mask("others", f.others);
    printf("}");
}

static void add(Traffic &sum, const Traffic &one) {
    sum.loads += one.loads;
    sum.load_bytes += one.load_bytes;
    sum.stores += one.stores;
    sum.store_bytes += one.store_bytes;
    sum.atomics += one.atomics;
}

static void print_traffic(const Traffic &t) {
    printf("%llu,%llu,%llu,%llu,%llu", (unsigned long long)t.loads, (unsigned long long)t.load_bytes,
           (unsigned long long)t.stores, (unsigned long long)t.store_bytes, (unsigned long long)t.atomics);
}

static void print_outcomes(const Outcome *all, int workers, const uint64_t *blocks) {
    Outcome sum = {};
    printf("{\"findings\":[");
    int first = 1;
    for (int w = 0; w < workers; w++) {
        for (uint32_t i = 0; i < all[w].findings; i++, first = 0) print_finding(all[w].finding[i], first);
        for (int p = 0; p < NOWHERE; p++) add(sum.traffic[p], all[w].traffic[p]);
        for (int b = 0; b < MSL_BUFFERS; b++) {
            add(sum.buffer[b].all, all[w].buffer[b].all);
            sum.buffer[b].read_once += all[w].buffer[b].read_once;
        }
        for (int k = 0; k <= MSL_THREADGROUP_BARRIER; k++) sum.met[k] += all[w].met[k];
        sum.threads += all[w].threads;
        sum.stopped |= all[w].stopped;
    }
    printf("],\"stopped\":%u,\"threads\":%llu,\"traffic\":[", sum.stopped, (unsigned long long)sum.threads);
    for (int p = 0; p < NOWHERE; p++) {
        printf(p ? ",[" : "[");
        print_traffic(sum.traffic[p]);
        printf("]");
    }
    printf("],\"buffers\":[");
    for (int b = 0; b < MSL_BUFFERS; b++) {
        printf(b ? ",[" : "[");
        print_traffic(sum.buffer[b].all);
        printf(",%llu]", (unsigned long long)sum.buffer[b].read_once);
    }
    printf("],\"met\":[");
    for (int k = 0; k <= MSL_THREADGROUP_BARRIER; k++) printf("%s%llu", k ? "," : "", (unsigned long long)sum.met[k]);
    printf("],\"blocks\":{");
    int some = 0;
    for (int i = 0; i < msl_block_count; i++)
        if (blocks[i]) printf("%s\"%d\":%llu", some++ ? "," : "", i, (unsigned long long)blocks[i]);
    printf("}}\n");
}

static void *shared(size_t size) {
    void *out = mmap(nullptr, size ? size : 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
    if (out == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return out;
}

int main(int count, char **arguments) {
    if (count == 2 && !strcmp(arguments[1], "--list")) {
        list();
        return 0;
    }
    int file = count == 2 ? open(arguments[1], O_RDWR) : -1;
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        perror("request");
        return 2;
    }
    request = (Request *)mmap(nullptr, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (request == MAP_FAILED || request->magic != 0x314c534d) {
        fprintf(stderr, "%s: not a request\n", arguments[1]);
        return 2;
    }
    kernel = &msl_kernels[request->kernel];
    for (int i = 0; i < MSL_BUFFERS; i++)
        buffers[i] = request->buffers[i].bound ? (char *)request + request->buffers[i].offset : nullptr;
    for (uint32_t i = 0; i < request->constants; i++)
        for (int k = 0; k < msl_constant_count; k++)
            if ((uint32_t)msl_constants[k].id == request->values[i].id) {
                memcpy(msl_constants[k].value, request->values[i].value, msl_constants[k].size);
                *msl_constants[k].defined = 1;
            }
    lane_count = (int)(request->threads[0] * request->threads[1] * request->threads[2]);
    simdgroup_count = (lane_count + WIDTH - 1) / WIDTH;
    int workers = (int)request->workers;
    Outcome *all = (Outcome *)shared(sizeof(Outcome) * (size_t)workers);
    uint64_t *blocks = (uint64_t *)shared(sizeof(uint64_t) * (size_t)msl_block_count);
    uint64_t *next = (uint64_t *)shared(sizeof *next);
    outcome = all;
    lay_out_threadgroups();
    for (int w = 0; w < workers; w++) {
        pid_t child = fork();
        if (child < 0) {
            perror("fork");
            return 2;
        }
        if (child == 0) {
            outcome = &all[w];
            work(next, blocks);
            _exit(0);
        }
    }
    for (int ended = 0, code; ended < workers;) {
        if (wait(&code) < 0 && errno != EINTR) break;
        ended++;
        if (!WIFSIGNALED(code)) continue; // one that was stopped for a fault has said so itself
        lane = nullptr;
        outcome = all;
        outcome->stopped = 1;
        if (Finding *found = report(CRASH, -1)) found->detail = WTERMSIG(code);
    }
    print_outcomes(all, workers, blocks);
    return 0;
}
