// Writes the variants of the x86 kernels that this CPU can run, as a list of CMake's; nothing on other processors.
#include <stdio.h>

#if defined(__x86_64__) || defined(__i386__)
#    include <cpuid.h>

static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

int main(void) {
    __builtin_cpu_init();
    const int sse41     = __builtin_cpu_supports("sse4.1") != 0;
    const int ivybridge = __builtin_cpu_supports("avx") && has_f16c();
    const int avx2      = ivybridge && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const int avx512    = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
                       __builtin_cpu_supports("avx512vnni");
    // An x86 that has one of these has those before it, too.
    printf("%s%s%s%s", sse41 ? "sse41" : "", ivybridge ? ";ivybridge" : "", avx2 ? ";avx2" : "", avx512 ? ";avx512" : "");
    return 0;
}
#else
int main(void) {
    return 0;
}
#endif
