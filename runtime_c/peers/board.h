/* What every program of an engine in C needs: marks for the virtual board, a clock, the memory counter.
 *
 * PROGRAM RUNS: reads in.bin, writes out.bin, prints one line of JSON. RUNS < 0 counts memory; RUNS = 0 runs once to
 * warm up and once in the marked region; else the clock of RUNS runs after the warm-up, or of as many (CG_FEW at
 * least) as CG_SECONDS allow. */
#ifndef CG_PEERS_BOARD_H
#define CG_PEERS_BOARD_H

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void cg_heap_begin(void);
long long cg_heap_peak(void);

enum { CG_WHOLE = 0, CG_WARM_UP = 65535, CG_FEW = 10, CG_SECONDS = 20 };

/* A region begins (1) or ends (0): getpriority(2) with a `which` that no kernel knows. */
static inline void cg_region(long begin, long id)
{
    register long which __asm__("x0") = 0x43470000 + begin;
    register long who __asm__("x1") = id;
    register long number __asm__("x8") = 141;
    __asm__ volatile("svc #0" : "+r"(which) : "r"(who), "r"(number) : "memory");
}

static inline long long cg_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void *cg_file(const char *name, size_t *bytes)
{
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        exit(3);
    long size = ftell(file);
    rewind(file);
    void *data = malloc((size_t)size + 1);
    if (!data || fread(data, 1, (size_t)size, file) != (size_t)size)
        exit(3);
    fclose(file);
    if (bytes)
        *bytes = (size_t)size;
    return data;
}

/* Stay on core $CODEGEN_CPU, where the runner names one. */
static inline int cg_pin(void)
{
    const char *chosen = getenv("CODEGEN_CPU");
    if (!chosen || !*chosen)
        return -1;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(strtoul(chosen, NULL, 10), &set);
    return sched_setaffinity(0, sizeof set, &set) ? -1 : atoi(chosen);
}

static inline void cg_measure(int runs, void (*run)(void))
{
    if (runs < 0) {
        run();
        printf("{\"peak_bytes\": %lld}\n", cg_heap_peak());
        return;
    }
    int cpu = cg_pin();
    cg_region(1, CG_WARM_UP);
    run();
    cg_region(0, CG_WARM_UP);
    if (!runs) {
        cg_region(1, CG_WHOLE);
        run();
        cg_region(0, CG_WHOLE);
    }
    printf("{\"cycles\": null, \"runs_ns\": [");
    long long end = cg_now() + CG_SECONDS * 1000000000LL;
    for (int i = 0; i < runs && (i < CG_FEW || cg_now() < end); i++) {
        long long start = cg_now();
        run();
        printf("%s%lld", i ? ", " : "", cg_now() - start);
    }
    if (cpu >= 0)
        printf("], \"cpu\": %d}\n", cpu);
    else
        printf("]}\n");
}

static inline void cg_write(const char *name, const void *data, size_t bytes)
{
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file))
        exit(4);
}

#endif
