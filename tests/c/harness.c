/* Run a generated library the way a suspicious user would. harness MODE INPUTS [OUTPUTS]; exit code 0 if all held.
 *
 *   run      buffers on the heap, exactly as large as promised and aligned no better than their element type
 *   fills    what arena and outputs hold before a call must not matter; all of every output must be written
 *   threads  two samples, an arena each: one after the other, then both at the same time, many times
 *   stack    print the bytes of stack that one call uses
 *
 * INPUTS holds samples, each all input tensors one after another. The library is described by `net` (see library.py). */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

enum { RUNS = 20, STACK_BYTES = 1 << 20 };

typedef struct {
    unsigned char *in[NET_INPUTS], *out[NET_OUTPUTS];
    void *arena;
} buffers;

static void fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* `bytes` bytes that end where the block ends, one element away from the alignment that malloc gives. */
static unsigned char *tensor(size_t bytes, size_t element)
{
    unsigned char *block = malloc(element + bytes);
    if (!block)
        fail("no memory");
    memset(block, 0xA5, element + bytes);
    return block + element;
}

static buffers make(int fill)
{
    buffers b;
    for (int i = 0; i < NET_INPUTS; i++)
        b.in[i] = tensor(net_input_bytes[i], net_input_element[i]);
    for (int i = 0; i < NET_OUTPUTS; i++) {
        b.out[i] = tensor(net_output_bytes[i], net_output_element[i]);
        memset(b.out[i], fill, net_output_bytes[i]);
    }
    b.arena = aligned_alloc(64, NET_ARENA_BYTES);
    if (!b.arena)
        fail("no memory");
    memset(b.arena, fill, NET_ARENA_BYTES);
    return b;
}

static void release(buffers *b)
{
    for (int i = 0; i < NET_INPUTS; i++)
        free(b->in[i] - net_input_element[i]);
    for (int i = 0; i < NET_OUTPUTS; i++)
        free(b->out[i] - net_output_element[i]);
    free(b->arena);
}

/* The next sample; 0 at the end of the file. */
static int fill_inputs(const buffers *b, FILE *f)
{
    for (int i = 0; i < NET_INPUTS; i++)
        if (fread(b->in[i], net_input_bytes[i], 1, f) != 1)
            return 0;
    return 1;
}

static void copy_inputs(const buffers *to, const buffers *from)
{
    for (int i = 0; i < NET_INPUTS; i++)
        memcpy(to->in[i], from->in[i], net_input_bytes[i]);
}

static void same_outputs(const buffers *a, const buffers *b, const char *otherwise)
{
    for (int i = 0; i < NET_OUTPUTS; i++)
        if (memcmp(a->out[i], b->out[i], net_output_bytes[i]))
            fail(otherwise);
}

static void run(FILE *f, const char *path)
{
    FILE *to = fopen(path, "wb");
    buffers b = make(0xFF), before = make(0);
    while (fill_inputs(&b, f)) {
        copy_inputs(&before, &b);
        net_run(b.arena, b.in, b.out);
        for (int i = 0; i < NET_INPUTS; i++)
            if (memcmp(b.in[i], before.in[i], net_input_bytes[i]))
                fail("an input was written to");
        for (int i = 0; i < NET_OUTPUTS; i++)
            if (!to || fwrite(b.out[i], net_output_bytes[i], 1, to) != 1)
                fail("cannot write");
    }
    if (fclose(to))
        fail("cannot write");
    release(&b);
    release(&before);
}

static void fills(FILE *f)
{
    const int patterns[] = {0xFF, 0x7F, 0x5A}; /* NaN, huge, ordinary */
    buffers zero = make(0);
    if (!fill_inputs(&zero, f))
        fail("no sample");
    net_run(zero.arena, zero.in, zero.out);
    for (int i = 0; i < 3; i++) {
        buffers b = make(patterns[i]);
        copy_inputs(&b, &zero);
        net_run(b.arena, b.in, b.out);
        same_outputs(&b, &zero, "what the buffers held before the call matters");
        release(&b);
    }
    release(&zero);
}

typedef struct {
    buffers b, expected;
} job;

static void *work(void *arg)
{
    job *j = arg;
    for (int i = 0; i < RUNS; i++) {
        net_run(j->b.arena, j->b.in, j->b.out);
        same_outputs(&j->b, &j->expected, "two calls at a time disturb each other");
    }
    return NULL;
}

static void threads(FILE *f)
{
    job jobs[2];
    pthread_t ids[2];
    for (int i = 0; i < 2; i++) {
        jobs[i].b = make(0x5A);
        jobs[i].expected = make(0);
        if (!fill_inputs(&jobs[i].expected, f))
            fail("two samples are needed");
        copy_inputs(&jobs[i].b, &jobs[i].expected);
        net_run(jobs[i].expected.arena, jobs[i].expected.in, jobs[i].expected.out);
    }
    for (int i = 0; i < 2; i++)
        if (pthread_create(&ids[i], NULL, work, &jobs[i]))
            fail("no thread");
    for (int i = 0; i < 2; i++)
        pthread_join(ids[i], NULL);
}

typedef struct {
    void (*call)(void *, unsigned char **, unsigned char **);
    buffers b;
} stack_job;

static void nothing(void *arena, unsigned char **in, unsigned char **out) { (void)arena, (void)in, (void)out; }

static void *call_once(void *arg)
{
    stack_job *j = arg;
    j->call(j->b.arena, j->b.in, j->b.out);
    return NULL;
}

/* Bytes of a painted stack that a thread which makes one call overwrites. */
static size_t high_water(stack_job j)
{
    static _Alignas(4096) unsigned char stack[STACK_BYTES];
    pthread_attr_t attr;
    pthread_t id;
    memset(stack, 0xC7, sizeof stack);
    pthread_attr_init(&attr);
    pthread_attr_setstack(&attr, stack, sizeof stack);
    if (pthread_create(&id, &attr, call_once, &j))
        fail("no thread");
    pthread_join(id, NULL);
    size_t untouched = 0;
    while (stack[untouched] == 0xC7)
        untouched++;
    return sizeof stack - untouched;
}

static void stack(FILE *f)
{
    stack_job j = {nothing, make(0)};
    if (!fill_inputs(&j.b, f))
        fail("no sample");
    size_t base = high_water(j);
    j.call = net_run_static;
    printf("%zu\n", high_water(j) - base);
}

int main(int argc, char **argv)
{
    FILE *f = argc > 2 ? fopen(argv[2], "rb") : NULL;
    if (!f)
        fail("usage: harness MODE INPUTS [OUTPUTS]");
    if (!strcmp(argv[1], "run") && argc > 3)
        run(f, argv[3]);
    else if (!strcmp(argv[1], "fills"))
        fills(f);
    else if (!strcmp(argv[1], "threads"))
        threads(f);
    else if (!strcmp(argv[1], "stack"))
        stack(f);
    else
        fail("no such mode");
    fclose(f);
    return 0;
}
