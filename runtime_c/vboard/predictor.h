/* The branch predictor of the virtual board (gshare: McFarling, "Combining Branch Predictors", 1993); included by
 * plugin.c alone.
 *
 * The ways of the last `history` conditional branches, exclusive-or the branch's address, choose one of 2^history
 * two-bit counters. A loop of fewer turns than `history` is learned, the end of a longer one is a surprise. */
#ifndef VBOARD_PREDICTOR_H
#define VBOARD_PREDICTOR_H
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WEAKLY_TAKEN = 2, STRONGLY_TAKEN = 3 };
static uint8_t *counters;
static uint64_t past, past_mask; /* bit 0: the last branch was taken */

static void make_predictor(unsigned history)
{
    past_mask = (UINT64_C(1) << history) - 1;
    counters = malloc(past_mask + 1);
    memset(counters, WEAKLY_TAKEN, past_mask + 1);
}

/* B.cond, CBZ, CBNZ, TBZ or TBNZ (Arm ARM, C4.1 "Branches"). */
static bool is_conditional_branch(uint32_t word)
{
    return (word & 0xFF000010) == 0x54000000 || (word & 0x7E000000) == 0x34000000 ||
           (word & 0x7E000000) == 0x36000000;
}

/* One execution of the branch that ends at an address: whether the core had guessed the other way. */
static bool branch_surprises(uint64_t end, bool taken)
{
    uint8_t *counter = &counters[(end >> 2 ^ past) & past_mask];
    bool guess = *counter >= WEAKLY_TAKEN;
    if (taken && *counter < STRONGLY_TAKEN)
        ++*counter;
    else if (!taken && *counter > 0)
        --*counter;
    past = (past << 1 | taken) & past_mask;
    return guess != taken;
}
#endif
