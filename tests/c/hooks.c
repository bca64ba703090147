/* kws without threads: a caller's own parallel_for may run parts in any order. All must give the bits of kws_run_in. */
#include <stdio.h>
#include <string.h>

#include "kws.h"

static kws_arena arena;
static float input[KWS_INPUT_SIZE], expected[KWS_OUTPUT_SIZE], output[KWS_OUTPUT_SIZE];

static void forwards(void *context, void (*task)(void *args, int part), void *args, int parts)
{
    ++*(int *)context;
    for (int part = 0; part < parts; part++)
        task(args, part);
}

static void backwards(void *context, void (*task)(void *args, int part), void *args, int parts)
{
    ++*(int *)context;
    for (int part = parts - 1; part >= 0; part--)
        task(args, part);
}

static void odd_ones_first(void *context, void (*task)(void *args, int part), void *args, int parts)
{
    ++*(int *)context;
    for (int odd = 1; odd >= 0; odd--)
        for (int part = odd; part < parts; part += 2)
            task(args, part);
}

int main(void)
{
    kws_parallel_for *const hooks[] = {forwards, backwards, odd_ones_first};
    for (int i = 0; i < KWS_INPUT_SIZE; i++)
        input[i] = (float)(i * 13 % 255);
    kws_run_in(&arena, input, expected);
    for (int i = 0; i < 3; i++) {
        int jobs = 0;
        memset(&arena, 0xFF, sizeof arena);
        memset(output, 0, sizeof output);
        kws_run_parallel(&arena, hooks[i], &jobs, input, output);
        if (memcmp(output, expected, sizeof output)) {
            printf("hook %d changes the result\n", i);
            return 1;
        }
        printf("%d jobs\n", jobs);
    }
    return 0;
}
