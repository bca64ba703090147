/* Freestanding: only the headers that a bare-metal compiler has, and an arena that the linker script places. */
#include <kws.h>

/* On a board this section would be, say, tightly coupled memory. */
__attribute__((section(".bss.network"))) static kws_arena arena;

int keyword(const float spectrogram[KWS_INPUT_SIZE]);

int keyword(const float spectrogram[KWS_INPUT_SIZE])
{
    float scores[KWS_OUTPUT_SIZE];
    kws_run_in(&arena, spectrogram, scores);
    int best = 0;
    for (int i = 1; i < KWS_OUTPUT_SIZE; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}
