/* Lines that move between L2 and memory, counted by the time that the core leaves for them: a line that was asked for
 * ahead costs nothing where the bus needs less time for it than the core for its other work.
 *
 * Time is counted in executed instructions, which the cycle model turns into cycles. It is the mean over WINDOW lines,
 * because the prefetcher evens out what is uneven; of a long pause it can use only so much. A line that is stored to
 * counts once, when it is written back: these cores write whole lines without reading them first. */
#ifndef VBOARD_BUS_H
#define VBOARD_BUS_H
#include "events.h"

enum { WINDOW = 16, LONGEST = 256, STEP = 4 /* instructions per spacing; the last one takes all that is longer */ };
static uint64_t executed, last_line, window_time;
static unsigned window_lines;

static void close_window(void)
{
    if (window_lines) {
        uint64_t spacing = window_time / window_lines / STEP;
        events[SPACING + (spacing < SPACINGS ? spacing : SPACINGS - 1)] += window_lines;
    }
    window_lines = 0;
    window_time = 0;
}

static void move_line(void)
{
    uint64_t time = executed - last_line;
    last_line = executed;
    window_time += time < LONGEST ? time : LONGEST;
    if (++window_lines == WINDOW)
        close_window();
}
#endif
