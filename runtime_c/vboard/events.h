/* What the virtual board counts; included by its other parts. */
#ifndef VBOARD_EVENTS_H
#define VBOARD_EVENTS_H
#include <stdint.h>

enum { SPACINGS = 32 };
enum { /* a store's number is the load's + 1 */
       LOAD_L2, STORE_L2, LOAD_MEMORY, STORE_MEMORY, FIRST_L2, STORE_FIRST_L2, FIRST_MEMORY, STORE_FIRST_MEMORY,
       WRITE_BACK_L1, WRITE_BACK_L2, LOADS, STORES, MISPREDICTED, SPACING /* the first of SPACINGS, see bus.h */,
       EVENTS = SPACING + SPACINGS };

static uint64_t events[EVENTS], events_seen[EVENTS];
#endif
