/* One inference of a CIFAR-10 classifier on a made-up image; prints the class and its probability. */
#include <stdio.h>

#include <resnet8.h>

static float image[RESNET8_INPUT_SIZE];
static float classes[RESNET8_OUTPUT_SIZE];

int main(void)
{
    for (int i = 0; i < RESNET8_INPUT_SIZE; i++)
        image[i] = (float)(i * 7 % 255 - 128) / 128.0f;
    resnet8_run(image, classes);

    int best = 0;
    for (int i = 1; i < RESNET8_OUTPUT_SIZE; i++)
        if (classes[i] > classes[best])
            best = i;
    printf("class %d, probability %.4f, arena %d bytes\n", best, (double)classes[best], RESNET8_ARENA_BYTES);
    return 0;
}
