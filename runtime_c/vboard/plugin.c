/* The virtual board's counting half: a plugin for qemu's user mode (TCG plugin API version 1).
 *
 * Between region markers of the guest it counts how often control passes from one translated block to another, and
 * drives a model of L1D, L2 and a stream prefetcher with every memory access. Outside regions nothing is counted and
 * the caches stand still, so what a program prints or asks the clock has no influence.
 *
 * Marker: getpriority(which, id) with `which` MARK + 1 (begin) or MARK + 0 (end), which every kernel answers with
 * EINVAL. Regions nest; what happens is counted in all open ones.
 *
 * Arguments (key=value): out, l1_sets, l1_ways, l2_sets, l2_ways, line_shift, streams, ahead, history.
 * Output, text, one record per line (see codegen/run/virtual/counts.py):
 *   block INDEX ADDRESS HEX_BYTES      region ID ENTRIES EVENT...      edge ID FROM TO COUNT      end STATUS
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "caches.h"
#include "predictor.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = 1;

enum { GETPRIORITY = 141, MARK = 0x43470000, NO_REGS = 0, READ_WRITE = 3, MAX_DEPTH = 8, BUCKETS = 1 << 14 };

/* ---- blocks, and the edges between them ---- */

typedef struct Block Block;
typedef struct Edge Edge;
struct Edge {
    Block *from, *to;
    uint64_t count, seen; /* so far; at the last marker */
    size_t index;
    Edge *next;
};
struct Block {
    uint64_t address, end; /* end: of a block that a conditional branch ends, the address after it; else 0 */
    size_t insns, index;
    uint32_t *words;
    Edge *edges, *hot;
    Block *next;
};

static Block start; /* stands before the first block of an outermost region; index 0 */
static Block *buckets[BUCKETS];
static Block **blocks;
static Edge **edges;
static size_t n_blocks = 1, n_edges;
static Block *previous = &start;
static unsigned depth;
static const char *status = "ok";

static void *allocate(void *old, size_t bytes)
{
    void *p = realloc(old, bytes);
    if (!p) {
        fputs("vboard: out of memory\n", stderr);
        exit(70);
    }
    return p;
}

/* Room for one more element of an array that doubles at powers of two. */
static void *grow(void *array, size_t n, size_t size)
{
    return n & (n - 1) ? array : allocate(array, (n ? 2 * n : 1) * size);
}

static Edge *edge(Block *from, Block *to)
{
    for (Edge *e = from->edges; e; e = e->next)
        if (e->to == to)
            return from->hot = e;
    Edge *e = allocate(NULL, sizeof *e);
    *e = (Edge){.from = from, .to = to, .index = n_edges, .next = from->edges};
    edges = grow(edges, n_edges, sizeof *edges);
    edges[n_edges++] = e;
    return from->edges = from->hot = e;
}

static void on_block(unsigned cpu, void *data)
{
    if (!depth)
        return;
    if (cpu)
        status = "threads";
    if (previous->end)
        events[MISPREDICTED] += branch_surprises(previous->end, ((Block *)data)->address != previous->end);
    Edge *e = previous->hot;
    if (!e || e->to != data)
        e = edge(previous, data);
    e->count++;
    previous = data;
    executed += previous->insns;
}

/* ---- caches ---- */

static void on_access(unsigned cpu, uint32_t info, uint64_t address, void *data)
{
    (void)cpu, (void)data;
    if (!depth)
        return;
    bool store = qemu_plugin_mem_is_store(info);
    uint64_t first = address >> line_shift;
    uint64_t last = (address + (1u << qemu_plugin_mem_size_shift(info)) - 1) >> line_shift;
    touch(first, store);
    if (last != first)
        touch(last, store);
}

/* ---- regions ---- */

typedef struct {
    uint64_t id, entries, events[EVENTS];
    uint64_t *counts; /* of edges */
    size_t n_counts;
} Region;

static Region *regions;
static size_t n_regions, stack[MAX_DEPTH]; /* of indices: `regions` moves when it grows */

/* What happened since the last marker goes to every open region. */
static void account(void)
{
    close_window();
    last_line = executed;
    for (unsigned d = 0; d < depth; d++) {
        Region *r = &regions[stack[d]];
        if (r->n_counts < n_edges) {
            r->counts = allocate(r->counts, n_edges * sizeof *r->counts);
            memset(r->counts + r->n_counts, 0, (n_edges - r->n_counts) * sizeof *r->counts);
            r->n_counts = n_edges;
        }
        for (size_t i = 0; i < n_edges; i++)
            r->counts[i] += edges[i]->count - edges[i]->seen;
        for (int i = 0; i < EVENTS; i++)
            r->events[i] += events[i] - events_seen[i];
    }
    for (size_t i = 0; i < n_edges; i++)
        edges[i]->seen = edges[i]->count;
    memcpy(events_seen, events, sizeof events);
}

static void on_syscall(plugin_id id, unsigned cpu, int64_t number, uint64_t which, uint64_t region, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != GETPRIORITY || which >> 1 != MARK >> 1)
        return;
    account();
    if (which == MARK) {
        if (!depth || regions[stack[depth - 1]].id != region)
            status = "end-without-begin";
        else
            depth--;
        return;
    }
    if (depth == MAX_DEPTH) {
        status = "too-deep";
        return;
    }
    size_t i = 0;
    while (i < n_regions && regions[i].id != region)
        i++;
    if (i == n_regions) {
        regions = grow(regions, n_regions, sizeof *regions);
        regions[n_regions++] = (Region){.id = region};
    }
    regions[i].entries++;
    if (!depth)
        previous = &start;
    stack[depth++] = i;
}

/* ---- qemu's side ---- */

static Block *block_of(const struct qemu_plugin_tb *tb)
{
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    size_t insns = qemu_plugin_tb_n_insns(tb);
    Block **bucket = &buckets[(address >> 2) % BUCKETS];
    for (Block *b = *bucket; b; b = b->next)
        if (b->address == address && b->insns == insns)
            return b;
    Block *b = allocate(NULL, sizeof *b);
    *b = (Block){.address = address, .insns = insns, .index = n_blocks, .next = *bucket};
    b->words = allocate(NULL, insns * sizeof *b->words);
    for (size_t i = 0; i < insns; i++)
        memcpy(&b->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), 4);
    b->end = is_conditional_branch(b->words[insns - 1]) ? address + 4 * insns : 0;
    blocks = grow(blocks, n_blocks, sizeof *blocks);
    blocks[n_blocks++] = b;
    return *bucket = b;
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, NO_REGS, block_of(tb));
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, NO_REGS, READ_WRITE, NULL);
}

static void write_counts(plugin_id id, void *path)
{
    (void)id;
    FILE *f = fopen(path, "w");
    if (!f)
        return; /* the reader says that the file is missing */
    if (depth) {
        account();
        if (!strcmp(status, "ok"))
            status = "open";
    }
    for (size_t i = 1; i < n_blocks; i++) {
        fprintf(f, "block %zu %" PRIx64 " ", i, blocks[i]->address);
        for (size_t k = 0; k < blocks[i]->insns; k++)
            fprintf(f, "%08" PRIx32, blocks[i]->words[k]);
        fputc('\n', f);
    }
    for (size_t r = 0; r < n_regions; r++) {
        fprintf(f, "region %" PRIu64 " %" PRIu64, regions[r].id, regions[r].entries);
        for (int i = 0; i < EVENTS; i++)
            fprintf(f, " %" PRIu64, regions[r].events[i]);
        fputc('\n', f);
        for (size_t i = 0; i < regions[r].n_counts; i++)
            if (regions[r].counts[i])
                fprintf(f, "edge %" PRIu64 " %zu %zu %" PRIu64 "\n", regions[r].id, edges[i]->from->index,
                        edges[i]->to->index, regions[r].counts[i]);
    }
    fprintf(f, "end %s\n", status);
    fclose(f);
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    enum { L1_SETS, L1_WAYS, L2_SETS, L2_WAYS, LINE_SHIFT, STREAMS, AHEAD, HISTORY, KEYS };
    static const char *const keys[KEYS] = {"l1_sets",    "l1_ways", "l2_sets", "l2_ways",
                                           "line_shift", "streams", "ahead",   "history"};
    uint64_t values[KEYS] = {0};
    char *out = NULL;
    (void)info;
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value)
            continue;
        size_t length = (size_t)(value - argv[i]);
        if (length == 3 && !strncmp(argv[i], "out", 3))
            out = strdup(value + 1);
        for (int k = 0; k < KEYS; k++)
            if (length == strlen(keys[k]) && !strncmp(argv[i], keys[k], length))
                values[k] = strtoull(value + 1, NULL, 10);
    }
    for (int k = 0; k < KEYS; k++)
        if (!values[k] || !out) {
            fprintf(stderr, "vboard: %s is missing\n", out ? keys[k] : "out");
            return 1;
        }
    l1 = cache(values[L1_SETS], values[L1_WAYS]);
    l2 = cache(values[L2_SETS], values[L2_WAYS]);
    line_shift = (unsigned)values[LINE_SHIFT];
    n_streams = (unsigned)values[STREAMS];
    lines_ahead = (unsigned)values[AHEAD];
    streams = calloc(n_streams, sizeof *streams);
    make_predictor((unsigned)values[HISTORY]);
    blocks = allocate(NULL, sizeof *blocks); /* room for index 0, which is `start` */
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, write_counts, out);
    return 0;
}
