/* The hosted half, which only prints. */
#include <stdio.h>

#include <kws.h>

int keyword(const float spectrogram[KWS_INPUT_SIZE]);

static float spectrogram[KWS_INPUT_SIZE];

int main(void)
{
    for (int i = 0; i < KWS_INPUT_SIZE; i++)
        spectrogram[i] = (float)(i * 13 % 255);
    printf("keyword %d\n", keyword(spectrogram));
    return 0;
}
