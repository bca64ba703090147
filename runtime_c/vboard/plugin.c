/* The virtual board's counting half: a plugin for qemu's user mode (TCG plugin API version 1).
 *
 * Between region markers of the guest it counts how often control passes from one translated block to another, and
 * drives a model of L1D, L2 and a stream prefetcher with every memory access. Outside regions nothing is counted and
 * the caches stand still, so what a program prints or asks the clock has no influence.
 *
 * Marker: getpriority(which, id) with `which` MARK + 1 (begin) or MARK + 0 (end), which every kernel answers with
 * EINVAL. Regions nest; what happens is counted in all open ones.
 *
 * Arguments (key=value): out, l1_sets, l1_ways, l2_sets, l2_ways, line_shift, streams, ahead.
 * Output, text, one record per line (see codegen/run/virtual/counts.py):
 *   block INDEX ADDRESS HEX_BYTES      region ID ENTRIES EVENT...      edge ID FROM TO COUNT      end STATUS
 *
 * Debian ships no qemu-plugin.h, so the functions used are declared here (qemu 4.2 to 8.x have them). */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
bool qemu_plugin_mem_is_store(uint32_t info);
unsigned qemu_plugin_mem_size_shift(uint32_t info);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *),
                                      int flags, int rw, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

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
    uint64_t address;
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
    Edge *e = previous->hot;
    if (!e || e->to != data)
        e = edge(previous, data);
    e->count++;
    previous = data;
}

/* ---- caches ---- */

enum { VALID = 1, DIRTY = 2, FROM_L2 = 4, FROM_MEMORY = 8, PREFETCHED = FROM_L2 | FROM_MEMORY, TAG = 4, PAGE = 12 };
enum { /* events; a store's number is the load's + 1 */
       LOAD_L2, STORE_L2, LOAD_MEMORY, STORE_MEMORY, FIRST_L2, STORE_FIRST_L2, FIRST_MEMORY, STORE_FIRST_MEMORY,
       WRITE_BACK_L1, WRITE_BACK_L2, LOADS, STORES, EVENTS };

typedef struct {
    uint64_t *lines, mask; /* [set][way]: line << TAG | flags, most recently used first */
    unsigned ways;
} Cache;
typedef struct {
    uint64_t expected, ahead, used; /* next line, first line not asked for yet, time of last use */
} Stream;

static Cache l1, l2;
static Stream *streams;
static unsigned n_streams, lines_ahead, line_shift;
static uint64_t now, events[EVENTS], events_seen[EVENTS];

/* The line as first of its set, or NULL; flags stay. */
static uint64_t *find(Cache *c, uint64_t line)
{
    uint64_t *set = c->lines + (line & c->mask) * c->ways;
    for (unsigned i = 0; i < c->ways; i++)
        if (set[i] >> TAG == line && set[i] & VALID) {
            uint64_t hit = set[i];
            memmove(set + 1, set, i * sizeof *set);
            set[0] = hit;
            return set;
        }
    return NULL;
}

static bool holds(const Cache *c, uint64_t line)
{
    const uint64_t *set = c->lines + (line & c->mask) * c->ways;
    for (unsigned i = 0; i < c->ways; i++)
        if (set[i] >> TAG == line && set[i] & VALID)
            return true;
    return false;
}

/* Puts a line first in its set and returns what fell out. */
static uint64_t insert(Cache *c, uint64_t line, uint64_t flags)
{
    uint64_t *set = c->lines + (line & c->mask) * c->ways, victim = set[c->ways - 1];
    memmove(set + 1, set, (c->ways - 1) * sizeof *set);
    set[0] = line << TAG | VALID | flags;
    return victim;
}

static void insert_l2(uint64_t line, uint64_t flags)
{
    if ((insert(&l2, line, flags) & (VALID | DIRTY)) == (VALID | DIRTY))
        events[WRITE_BACK_L2]++;
}

static void insert_l1(uint64_t line, uint64_t flags)
{
    uint64_t victim = insert(&l1, line, flags);
    if ((victim & (VALID | DIRTY)) != (VALID | DIRTY))
        return;
    events[WRITE_BACK_L1]++;
    uint64_t *below = find(&l2, victim >> TAG);
    if (below)
        *below |= DIRTY;
    else
        insert_l2(victim >> TAG, DIRTY);
}

/* Whether L2 has the line; if not, it gets it. */
static bool fetch(uint64_t line)
{
    if (find(&l2, line))
        return true;
    insert_l2(line, 0);
    return false;
}

/* A miss, or the first use of a prefetched line. Two misses on neighbouring lines start a stream; it ends with its
 * page. A line that no stream expected replaces the stream that was used least recently. */
static void train(uint64_t line, bool miss)
{
    Stream *s = NULL, *oldest = streams;
    for (unsigned i = 0; i < n_streams; i++) {
        if (streams[i].expected == line)
            s = &streams[i];
        if (streams[i].used < oldest->used)
            oldest = &streams[i];
    }
    uint64_t page_end = ((line >> (PAGE - line_shift)) + 1) << (PAGE - line_shift);
    if (s) {
        uint64_t end = line + 1 + lines_ahead;
        if (end > page_end)
            end = page_end;
        for (uint64_t l = s->ahead > line ? s->ahead : line + 1; l < end; l++)
            if (!holds(&l1, l))
                insert_l1(l, fetch(l) ? FROM_L2 : FROM_MEMORY);
        s->ahead = end;
    } else if (miss) {
        s = oldest;
        s->ahead = line + 2;
    } else {
        return;
    }
    s->used = ++now;
    s->expected = line + 1 < page_end ? line + 1 : 0; /* 0: nothing is expected of a stream that has ended */
}

static void touch(uint64_t line, bool store)
{
    uint64_t *hit = l1.lines + (line & l1.mask) * l1.ways;
    events[LOADS + store]++;
    if (*hit >> TAG != line || !(*hit & VALID))
        hit = find(&l1, line);
    if (!hit) {
        events[(fetch(line) ? LOAD_L2 : LOAD_MEMORY) + store]++;
        insert_l1(line, store ? DIRTY : 0);
        train(line, true);
        return;
    }
    uint64_t prefetched = *hit & PREFETCHED;
    if (store)
        *hit |= DIRTY;
    if (prefetched) {
        *hit &= ~(uint64_t)PREFETCHED;
        events[(prefetched == FROM_L2 ? FIRST_L2 : FIRST_MEMORY) + store]++;
        train(line, false);
    }
}

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

static Cache cache(uint64_t sets, uint64_t ways)
{
    Cache c = {.mask = sets - 1, .ways = (unsigned)ways};
    c.lines = calloc(sets * ways, sizeof *c.lines);
    return c;
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    enum { L1_SETS, L1_WAYS, L2_SETS, L2_WAYS, LINE_SHIFT, STREAMS, AHEAD, KEYS };
    static const char *const keys[KEYS] = {"l1_sets", "l1_ways",    "l2_sets", "l2_ways",
                                           "line_shift", "streams", "ahead"};
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
    blocks = allocate(NULL, sizeof *blocks); /* room for index 0, which is `start` */
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, write_counts, out);
    return 0;
}
