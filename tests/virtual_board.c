/* Programs with known answers for the virtual board; argv[1] chooses one. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINES = 131072, WORDS = 8, SMALL = 4096, TURNS = 10000, WARM_UP = 65535 };
static uint64_t big[LINES * WORDS] __attribute__((aligned(4096)));
static uint64_t other[LINES * WORDS] __attribute__((aligned(4096)));
static uint64_t small[SMALL * WORDS] __attribute__((aligned(4096)));

static inline void region(long begin, long id)
{
    register long which __asm__("x0") = 0x43470000 + begin;
    register long who __asm__("x1") = id;
    register long number __asm__("x8") = 141;
    __asm__ volatile("svc #0" : "+r"(which) : "r"(who), "r"(number) : "memory");
}

/* One load or store per line of an array. */
#define EACH_LINE(array, lines, instruction)                                                   \
    do {                                                                                       \
        uint64_t *p = (array);                                                                 \
        long n = (lines);                                                                      \
        __asm__ volatile("1: " instruction " xzr, [%0]\n add %0, %0, #64\n"                    \
                         "subs %1, %1, #1\n b.ne 1b" : "+r"(p), "+r"(n)::"cc", "memory");      \
    } while (0)
#define LOOP(turns, body, ...)                                                                 \
    do {                                                                                       \
        long n = turns;                                                                        \
        __asm__ volatile("1:\n" body "subs %0, %0, #1\n b.ne 1b" : "+r"(n)::"cc", __VA_ARGS__); \
    } while (0)

static void caches(void)
{
    region(1, WARM_UP);
    EACH_LINE(other, LINES, "ldr");
    region(0, WARM_UP);
    region(1, 1); /* stream */
    EACH_LINE(big, LINES, "ldr");
    region(0, 1);
    for (long i = 0; i < LINES; i++)
        big[i * WORDS] = (uint64_t)&big[((i + 4097) % LINES) * WORDS];
    region(1, WARM_UP);
    EACH_LINE(other, LINES, "ldr");
    region(0, WARM_UP);
    uint64_t *p = big;
    region(1, 2); /* chase */
    for (long i = 0; i < LINES; i++)
        __asm__ volatile("ldr %0, [%0]" : "+r"(p));
    region(0, 2);
    region(1, WARM_UP);
    EACH_LINE(small, SMALL, "ldr");
    region(0, WARM_UP);
    region(1, 3); /* read 256 KiB again */
    EACH_LINE(small, SMALL, "ldr");
    region(0, 3);
    region(1, WARM_UP);
    EACH_LINE(other, LINES, "ldr");
    region(0, WARM_UP);
    region(1, 4); /* write */
    EACH_LINE(big, LINES, "str");
    region(0, 4);
    /* A 16-byte access across two lines, twice. */
    region(1, 5);
    __asm__ volatile("ldr q0, [%0]\n ldr q0, [%0]" ::"r"((char *)small + 120) : "v0");
    region(0, 5);
}

#define FMLA(d) "fmla v" #d ".4s, v30.4s, v31.4s\n"
#define CHAIN "fmla v0.4s, v30.4s, v31.4s\n"
#define THROUGH "fmul v0.4s, v0.4s, v31.4s\n"

static void core(void)
{
    region(1, 1); /* 16 independent accumulators */
    LOOP(TURNS, FMLA(0) FMLA(1) FMLA(2) FMLA(3) FMLA(4) FMLA(5) FMLA(6) FMLA(7) FMLA(8) FMLA(9)
         FMLA(10) FMLA(11) FMLA(12) FMLA(13) FMLA(14) FMLA(15), "v0");
    region(0, 1);
    region(1, 2); /* one accumulator */
    LOOP(TURNS, CHAIN CHAIN CHAIN CHAIN, "v0");
    region(0, 2);
    region(1, 3); /* products of products */
    LOOP(TURNS, THROUGH THROUGH THROUGH THROUGH, "v0");
    region(0, 3);
    region(1, 4); /* integer sums, each waiting for the one before */
    LOOP(TURNS, "add x9, x9, #1\n add x9, x9, #1\n add x9, x9, #1\n add x9, x9, #1\n", "x9");
    region(0, 4);
    region(1, 5); /* an inner loop of 5 turns, whose end the predictor learns */
    for (int i = 0; i < 1000; i++)
        LOOP(5, "add x9, x9, #1\n add x9, x9, #1\n", "x9");
    region(0, 5);
    region(1, 7); /* of 100 turns, which are more than it remembers */
    for (int i = 0; i < 1000; i++)
        LOOP(100, "add x9, x9, #1\n add x9, x9, #1\n", "x9");
    region(0, 7);
    region(1, 0); /* nested regions count in both */
    region(1, 6);
    LOOP(TURNS, CHAIN, "v0");
    region(0, 6);
    region(0, 0);
}

/* Stack, heap and environment take part. */
static void places(int argc, char **argv)
{
    volatile char stack[20000];
    char *heap = malloc(300000);
    region(1, 0);
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 20000; i += 8)
            stack[i] = (char)(i + argc);
        for (int i = 0; i < 300000; i += 24)
            heap[i] = stack[i % 20000];
    }
    memcpy(heap, argv[0], strlen(argv[0]));
    region(0, 0);
    printf("{\"heap\": \"%p\", \"stack\": \"%p\"}\n", (void *)heap, (void *)stack);
}

static void *thread(void *unused)
{
    for (volatile int i = 0; i < 1000; i++)
        ;
    return unused;
}

static void threads(void)
{
    pthread_t t;
    region(1, 0);
    pthread_create(&t, NULL, thread, NULL);
    pthread_join(t, NULL);
    region(0, 0);
}

#ifdef DOT
static void dot(void)
{
    region(1, 0);
    LOOP(TURNS, ".arch armv8.2-a+dotprod\n sdot v0.4s, v1.16b, v2.16b\n", "v0");
    region(0, 0);
}
#endif

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "caches"))
        caches();
    else if (!strcmp(what, "core"))
        core();
    else if (!strcmp(what, "places"))
        return places(argc, argv), 0;
    else if (!strcmp(what, "threads"))
        threads();
    else if (!strcmp(what, "open"))
        region(1, 0);
    else if (!strcmp(what, "end"))
        region(0, 0);
    else if (!strcmp(what, "deep"))
        for (int i = 0; i < 9; i++)
            region(1, i);
    else if (!strcmp(what, "trap"))
        __builtin_trap();
    else if (!strcmp(what, "hang"))
        for (volatile int i = 0;; i = 1)
            ;
#ifdef DOT
    else if (!strcmp(what, "dot"))
        dot();
#endif
    puts("{\"done\": true}");
    return 0;
}
