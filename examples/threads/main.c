/* One inference on two cores. The threads belong to the program: it starts them, may use them for several networks,
 * and ends them. */
#include <stdio.h>

#include <kws_threads.h>

static kws_arena arena;
static kws_threads threads;
static float spectrogram[KWS_INPUT_SIZE], scores[KWS_OUTPUT_SIZE];

int main(void)
{
    for (int i = 0; i < KWS_INPUT_SIZE; i++)
        spectrogram[i] = (float)(i * 13 % 255);
    int error = kws_threads_init(&threads, KWS_THREADS);
    if (error) {
        printf("no threads: error %d\n", error);
        return 1;
    }
    kws_run_parallel(&arena, kws_threads_for, &threads, spectrogram, scores);
    kws_threads_destroy(&threads);

    int best = 0;
    for (int i = 1; i < KWS_OUTPUT_SIZE; i++)
        if (scores[i] > scores[best])
            best = i;
    printf("keyword %d by %d threads\n", best, KWS_THREADS);
    return 0;
}
