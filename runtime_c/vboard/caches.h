/* L1D, L2 and the stream prefetcher of the virtual board, counting events; included by plugin.c alone.
 *
 * Write-allocate, least recently used out, 4 KiB pages. A first use is the first access to a line that the prefetcher
 * brought into L1D; it counts for the level that the line came from. */
#ifndef VBOARD_CACHES_H
#define VBOARD_CACHES_H
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bus.h"

enum { VALID = 1, DIRTY = 2, FROM_L2 = 4, FROM_MEMORY = 8, PREFETCHED = FROM_L2 | FROM_MEMORY, TAG = 4, PAGE = 12 };

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
static uint64_t now;

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
    if ((insert(&l2, line, flags) & (VALID | DIRTY)) == (VALID | DIRTY)) {
        events[WRITE_BACK_L2]++;
        move_line();
    }
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
        bool near = fetch(line);
        events[(near ? LOAD_L2 : LOAD_MEMORY) + store]++;
        if (!near && !store)
            move_line();
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
        if (prefetched == FROM_MEMORY && !store)
            move_line();
        train(line, false);
    }
}

static Cache cache(uint64_t sets, uint64_t ways)
{
    Cache c = {.mask = sets - 1, .ways = (unsigned)ways};
    c.lines = calloc(sets * ways, sizeof *c.lines);
    return c;
}
#endif
