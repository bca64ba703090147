/* Clock, core and markers of a measuring program; not part of a generated library. Define _GNU_SOURCE before the first
 * header that is included. */
#ifndef CG_MEASURE_H
#define CG_MEASURE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Nanoseconds; the raw clock is not slewed by NTP. */
static inline int64_t cg_now(void)
{
    struct timespec t;
#ifdef CLOCK_MONOTONIC_RAW
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

enum { CG_WARM_UP = 65535 }; /* a region that only fills the caches */

/* Tells the virtual board that a region begins (1) or ends (0): getpriority(2) with a `which` that no kernel knows. */
static inline void cg_region(long begin, long id)
{
#if defined(__aarch64__) && defined(__linux__)
    register long which __asm__("x0") = 0x43470000 + begin;
    register long who __asm__("x1") = id;
    register long number __asm__("x8") = 141;
    __asm__ volatile("svc #0" : "+r"(which) : "r"(who), "r"(number) : "memory");
#else
    (void)begin, (void)id;
#endif
}

#ifdef __linux__
static inline long cg_max_frequency(int cpu)
{
    char path[96];
    long khz = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", cpu);
    FILE *f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%ld", &khz) != 1)
            khz = 0;
        fclose(f);
    }
    return khz;
}

/* Stay on core $CODEGEN_CPU, without it on the fastest that this process may use, of equals the last. Returns it, -1
 * where none took us. */
static inline int cg_pin(void)
{
    unsigned char may[128], only[128] = {0}; /* bit n % 8 of byte n / 8: little-endian longs */
    const char *wanted = getenv("CODEGEN_CPU");
    int chosen = -1;
    long fastest = -1, bytes = syscall(SYS_sched_getaffinity, 0, sizeof may, may);
    for (int cpu = 0; cpu < 8 * bytes; cpu++) {
        if (!(may[cpu / 8] >> cpu % 8 & 1) || (wanted && *wanted && cpu != atoi(wanted)))
            continue;
        long khz = cg_max_frequency(cpu);
        if (khz >= fastest) {
            fastest = khz;
            chosen = cpu;
        }
    }
    if (chosen < 0)
        return -1;
    only[chosen / 8] = (unsigned char)(1u << chosen % 8);
    return syscall(SYS_sched_setaffinity, 0, sizeof only, only) < 0 ? -1 : chosen;
}
#else
static inline int cg_pin(void)
{
    return -1;
}
#endif
#endif
