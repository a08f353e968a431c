// Lanes as fibres: each has a stack of its own, and control passes between it and the scheduler by a switch of stacks.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

#ifdef __APPLE__
#define MSL_SYMBOL "_msl_switch"
#define MSL_BFLOAT "___truncsfbf2"
#else
#define MSL_SYMBOL "msl_switch"
#define MSL_BFLOAT "__truncsfbf2"
#endif

// Saves what a called function must keep on the stack, leaves the stack pointer in *from, and goes on where `to` left.
#if defined(__x86_64__)
extern "C" void msl_switch(void **from, void *to);
__asm__(".text\n.globl " MSL_SYMBOL "\n" MSL_SYMBOL ":\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n");
#elif defined(__aarch64__)
extern "C" void msl_switch(void **from, void *to);
__asm__(".text\n.globl " MSL_SYMBOL "\n.p2align 2\n" MSL_SYMBOL ":\n"
        "sub sp, sp, #160\n"
        "stp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\n"
        "stp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
        "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
        "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\n"
        "ldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\nret\n");
#endif

struct Fibre {
    static const size_t STACK = 256 * 1024;
    char *stack = nullptr; // its lowest page is never mapped readable, so an overflow faults
#if defined(__x86_64__) || defined(__aarch64__)
    void *at = nullptr;
    static inline void *scheduler = nullptr;

    void resume() { msl_switch(&scheduler, at); }
    void pause() { msl_switch(&at, scheduler); }
#else
    ucontext_t at;
    static inline ucontext_t scheduler;

    void resume() { swapcontext(&scheduler, &at); }
    void pause() { swapcontext(&at, &scheduler); }
#endif

    // `entry` must not return: it pauses for good at its end.
    void start(void (*entry)()) {
        if (!stack) {
            stack = (char *)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
            if (stack == MAP_FAILED) abort();
            mprotect(stack, (size_t)getpagesize(), PROT_NONE);
        }
#if defined(__x86_64__)
        void **top = (void **)(stack + STACK - 64);
        *--top = nullptr; // the return address of `entry`: with it the stack is aligned as after a call
        *--top = (void *)entry;
        for (int i = 0; i < 6; i++) *--top = nullptr;
        at = top;
#elif defined(__aarch64__)
        char *top = stack + STACK - 64 - 160;
        for (int i = 0; i < 20; i++) ((void **)top)[i] = nullptr;
        ((void **)top)[11] = (void *)entry;
        at = top;
#else
        getcontext(&at);
        at.uc_stack.ss_sp = stack;
        at.uc_stack.ss_size = STACK;
        at.uc_link = nullptr;
        makecontext(&at, entry, 0);
#endif
    }
    bool holds(uintptr_t a) const { return a - (uintptr_t)stack < STACK; }
};
