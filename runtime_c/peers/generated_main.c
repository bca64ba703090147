/* Runs a network that another generator wrote as the function `model`. CG_IN and CG_OUT are lists of the floats of each
 * input and output; with CG_LOAD, weights are in model.bin. */
#define _GNU_SOURCE
#include "board.h"

#include <string.h>

static const size_t in_floats[] = {CG_IN}, out_floats[] = {CG_OUT};
enum { INS = sizeof in_floats / sizeof *in_floats, OUTS = sizeof out_floats / sizeof *out_floats };
static float *port[8];

void model(); /* arrays of the network's own shapes, inputs first */
_Bool model_load(const char *path);

static void run(void)
{
    float **p = port;
    switch (INS + OUTS) {
    case 2: model(p[0], p[1]); break;
    case 3: model(p[0], p[1], p[2]); break;
    case 4: model(p[0], p[1], p[2], p[3]); break;
    case 5: model(p[0], p[1], p[2], p[3], p[4]); break;
    default: exit(5);
    }
}

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 0;
    float *in = cg_file("in.bin", NULL);
    cg_heap_begin();
#ifdef CG_LOAD
    if (!model_load("model.bin"))
        return 6;
#endif
    size_t total = 0;
    for (int i = 0; i < INS; i++)
        port[i] = in, in += in_floats[i];
    for (int i = 0; i < OUTS; i++)
        total += out_floats[i];
    float *out = malloc(total * sizeof *out), *next = out;
    if (!out)
        return 6;
    for (int i = 0; i < OUTS; i++)
        port[INS + i] = next, next += out_floats[i];
    cg_measure(runs, run);
    cg_write("out.bin", out, total * sizeof *out);
    return 0;
}
