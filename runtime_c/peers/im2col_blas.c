/* Networks by the classical recipe: every convolution a copy of patches (im2col) and a matrix product by OpenBLAS,
 * everything else in plain loops. Interprets net.bin (codegen/peers/blas_writer.py): struct head, steps, weights.
 * Tensors are NCHW floats at fixed places of one arena; patches have a buffer of their own. */
#define _GNU_SOURCE
#include "board.h"

#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum kind { CONV, DEPTHWISE, DENSE, MAX_POOL, AVERAGE_POOL, MEAN, COPY, ADD, MUL, SOFTMAX, ACTIVATE, TRANSPOSE };
enum act { NONE, RELU, CLIP, SIGMOID, HARD_SIGMOID, HARD_SWISH, LEAKY_RELU, SILU, TANH };

struct head {
    int32_t steps, arena, patches, weights, in, in_floats, out, out_floats; /* sizes in floats */
};

/* in, in2, residual and out are offsets into the arena, w and b into the weights; -1 where there is none. */
struct step {
    int32_t kind, in, in2, residual, out, w, b, act;
    float a0, a1;
    int32_t n, c, h, width, m, oh, ow, kh, kw, sh, sw, dh, dw, pt, pl, groups;
    int32_t size, outer, inner, from, to; /* COPY, ADD, MUL, MEAN, SOFTMAX; strides of a COPY */
    int32_t dims[4], perm[4];
};

static struct head *head;
static struct step *steps;
static const float *weights;
static float *arena, *patches;

static float activate1(float v, const struct step *s)
{
    switch (s->act) {
    case RELU: return v > 0 ? v : 0;
    case CLIP: return v < s->a0 ? s->a0 : v > s->a1 ? s->a1 : v;
    case SIGMOID: return 1 / (1 + expf(-v));
    case HARD_SIGMOID: return fminf(fmaxf(s->a0 * v + s->a1, 0), 1);
    case HARD_SWISH: return v * fminf(fmaxf(v / 6 + 0.5f, 0), 1);
    case LEAKY_RELU: return v >= 0 ? v : s->a0 * v;
    case SILU: return v / (1 + expf(-v));
    case TANH: return tanhf(v);
    default: return v;
    }
}

static void finish(const struct step *s, float *restrict y, size_t n)
{
    if (s->residual >= 0) {
        const float *restrict r = arena + s->residual;
        for (size_t i = 0; i < n; i++)
            y[i] += r[i];
    }
    if (s->act == RELU)
        for (size_t i = 0; i < n; i++)
            y[i] = y[i] > 0 ? y[i] : 0;
    else if (s->act == CLIP) {
        float low = s->a0, high = s->a1;
        for (size_t i = 0; i < n; i++) {
            float v = y[i] < low ? low : y[i];
            y[i] = v > high ? high : v;
        }
    } else if (s->act != NONE)
        for (size_t i = 0; i < n; i++)
            y[i] = activate1(y[i], s);
}

/* x[c][h][w] -> patches[c][kh][kw][oh][ow] */
static void im2col(const struct step *s, const float *x, int channels)
{
    float *p = patches;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < s->kh; i++)
            for (int j = 0; j < s->kw; j++)
                for (int oy = 0; oy < s->oh; oy++, p += s->ow) {
                    int iy = oy * s->sh - s->pt + i * s->dh;
                    if (iy < 0 || iy >= s->h) {
                        memset(p, 0, (size_t)s->ow * sizeof *p);
                        continue;
                    }
                    const float *row = x + ((long)c * s->h + iy) * s->width;
                    int ix = j * s->dw - s->pl;
                    for (int ox = 0; ox < s->ow; ox++, ix += s->sw)
                        p[ox] = ix >= 0 && ix < s->width ? row[ix] : 0;
                }
}

static void conv(const struct step *s)
{
    int cg = s->c / s->groups, mg = s->m / s->groups, pixels = s->oh * s->ow, depth = cg * s->kh * s->kw;
    int direct = s->kh * s->kw * s->sh * s->sw == 1 && !s->pt && !s->pl && s->oh == s->h && s->ow == s->width;
    for (int n = 0; n < s->n; n++) {
        float *y = arena + s->out + (long)n * s->m * pixels;
        for (int m = 0; m < s->m; m++) {
            float bias = s->b >= 0 ? weights[s->b + m] : 0;
            for (int i = 0; i < pixels; i++)
                y[(long)m * pixels + i] = bias;
        }
        for (int g = 0; g < s->groups; g++) {
            const float *x = arena + s->in + ((long)n * s->c + (long)g * cg) * s->h * s->width;
            if (!direct)
                im2col(s, x, cg);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, mg, pixels, depth, 1,
                        weights + s->w + (long)g * mg * depth, depth, direct ? x : patches, pixels, 1,
                        y + (long)g * mg * pixels, pixels);
        }
    }
    finish(s, arena + s->out, (size_t)(s->n * s->m) * (size_t)pixels);
}

static void depthwise(const struct step *s)
{
    int pixels = s->oh * s->ow, each = s->m / s->c;
    for (int n = 0; n < s->n; n++)
        for (int m = 0; m < s->m; m++) {
            const float *x = arena + s->in + ((long)n * s->c + m / each) * s->h * s->width;
            const float *k = weights + s->w + (long)m * s->kh * s->kw;
            float *restrict y = arena + s->out + ((long)n * s->m + m) * pixels;
            float bias = s->b >= 0 ? weights[s->b + m] : 0;
            for (int i = 0; i < pixels; i++)
                y[i] = bias;
            for (int oy = 0; oy < s->oh; oy++)
                for (int i = 0; i < s->kh; i++) {
                    int iy = oy * s->sh - s->pt + i * s->dh;
                    if (iy < 0 || iy >= s->h)
                        continue;
                    for (int j = 0; j < s->kw; j++) {
                        int shift = j * s->dw - s->pl, from = shift < 0 ? (-shift + s->sw - 1) / s->sw : 0;
                        int to = s->width - shift <= 0 ? 0 : (s->width - shift - 1) / s->sw + 1;
                        const float *restrict row = x + (long)iy * s->width + shift;
                        float *restrict line = y + oy * s->ow, tap = k[i * s->kw + j];
                        to = to < s->ow ? to : s->ow;
                        if (s->sw == 1)
                            for (int ox = from; ox < to; ox++)
                                line[ox] += row[ox] * tap;
                        else
                            for (int ox = from; ox < to; ox++)
                                line[ox] += row[ox * s->sw] * tap;
                    }
                }
        }
    finish(s, arena + s->out, (size_t)(s->n * s->m) * (size_t)pixels);
}

/* y[n][m] = x[n][c] w[c][m] + b */
static void dense(const struct step *s)
{
    float *y = arena + s->out;
    for (int n = 0; n < s->n; n++)
        for (int m = 0; m < s->m; m++)
            y[n * s->m + m] = s->b >= 0 ? weights[s->b + m] : 0;
    if (s->n == 1)
        cblas_sgemv(CblasRowMajor, CblasTrans, s->c, s->m, 1, weights + s->w, s->m, arena + s->in, 1, 1, y, 1);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, s->n, s->m, s->c, 1, arena + s->in, s->c,
                    weights + s->w, s->m, 1, y, s->m);
    finish(s, y, (size_t)s->n * (size_t)s->m);
}

/* `size` is 1 where an average counts the padding. */
static void pool(const struct step *s)
{
    int largest = s->kind == MAX_POOL;
    float *y = arena + s->out;
    for (int p = 0; p < s->n * s->c; p++) {
        const float *x = arena + s->in + (long)p * s->h * s->width;
        for (int oy = 0; oy < s->oh; oy++)
            for (int ox = 0; ox < s->ow; ox++) {
                float v = largest ? -INFINITY : 0;
                int count = 0;
                for (int i = 0; i < s->kh; i++)
                    for (int j = 0; j < s->kw; j++) {
                        int iy = oy * s->sh - s->pt + i * s->dh, ix = ox * s->sw - s->pl + j * s->dw;
                        if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->width)
                            continue;
                        float e = x[iy * s->width + ix];
                        v = largest ? (e > v ? e : v) : v + e;
                        count++;
                    }
                *y++ = largest ? v : v / (float)(s->size ? s->kh * s->kw : count);
            }
    }
}

/* Rows of `inner` floats: the mean of each. */
static void mean(const struct step *s)
{
    const float *x = arena + s->in;
    for (int o = 0; o < s->outer; o++, x += s->inner) {
        float sum = 0;
        for (int i = 0; i < s->inner; i++)
            sum += x[i];
        arena[s->out + o] = sum / (float)s->inner;
    }
}

/* `outer` pieces of `size` floats, `from` and `to` floats apart. */
static void copy(const struct step *s)
{
    for (int o = 0; o < s->outer; o++)
        memcpy(arena + s->out + (long)o * s->to, arena + s->in + (long)o * s->from, (size_t)s->size * sizeof(float));
}

/* y = x (+ or *) z, where z has one float for every `inner` floats of x (inner 1: as many as x), and repeats. */
static void binary(const struct step *s)
{
    const float *x = arena + s->in, *z = s->in2 >= 0 ? arena + s->in2 : weights + s->w;
    float *y = arena + s->out;
    for (int o = 0, i = 0; o < s->outer; o++)
        for (int k = 0; k < s->size; k++)
            for (int e = 0; e < s->inner; e++, i++)
                y[i] = s->kind == ADD ? x[i] + z[k] : x[i] * z[k];
    finish(s, y, (size_t)s->outer * (size_t)s->size * (size_t)s->inner);
}

static void softmax(const struct step *s)
{
    const float *x = arena + s->in;
    float *y = arena + s->out;
    for (int o = 0; o < s->outer; o++, x += s->inner, y += s->inner) {
        float top = x[0], sum = 0;
        for (int i = 1; i < s->inner; i++)
            top = x[i] > top ? x[i] : top;
        for (int i = 0; i < s->inner; i++)
            sum += y[i] = expf(x[i] - top);
        for (int i = 0; i < s->inner; i++)
            y[i] /= sum;
    }
}

static void activate(const struct step *s)
{
    memmove(arena + s->out, arena + s->in, (size_t)s->size * sizeof(float));
    finish(s, arena + s->out, (size_t)s->size);
}

static void transpose(const struct step *s)
{
    int32_t stride[4] = {s->dims[1] * s->dims[2] * s->dims[3], s->dims[2] * s->dims[3], s->dims[3], 1};
    int32_t n[4], step[4];
    for (int i = 0; i < 4; i++)
        n[i] = s->dims[s->perm[i]], step[i] = stride[s->perm[i]];
    float *y = arena + s->out;
    for (int a = 0; a < n[0]; a++)
        for (int b = 0; b < n[1]; b++)
            for (int c = 0; c < n[2]; c++)
                for (int d = 0; d < n[3]; d++)
                    *y++ = arena[s->in + a * step[0] + b * step[1] + c * step[2] + d * step[3]];
}

static void run(void)
{
    static void (*const does[])(const struct step *) = {
        [CONV] = conv, [DEPTHWISE] = depthwise, [DENSE] = dense, [MAX_POOL] = pool, [AVERAGE_POOL] = pool,
        [MEAN] = mean, [COPY] = copy, [ADD] = binary, [MUL] = binary, [SOFTMAX] = softmax, [ACTIVATE] = activate,
        [TRANSPOSE] = transpose,
    };
    for (int i = 0; i < head->steps; i++)
        does[steps[i].kind](&steps[i]);
}

int main(int argc, char **argv)
{
    int runs = argc > 1 ? atoi(argv[1]) : 0;
    float *in = cg_file("in.bin", NULL);
    cg_heap_begin();
    head = cg_file("net.bin", NULL);
    steps = (struct step *)(head + 1);
    weights = (const float *)(steps + head->steps);
    arena = calloc((size_t)head->arena + 1, sizeof *arena);
    patches = calloc((size_t)head->patches + 1, sizeof *patches);
    if (!arena || !patches)
        return 6;
    memcpy(arena + head->in, in, (size_t)head->in_floats * sizeof *in);
    cg_measure(runs, run);
    cg_write("out.bin", arena + head->out, (size_t)head->out_floats * sizeof *arena);
    return 0;
}
