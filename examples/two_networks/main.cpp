// Two networks in one program: they share no symbol, and one arena can serve both, one after the other.
#include <algorithm>
#include <cstdio>

#include <kws.h>
#include <resnet8.h>

static union {
    kws_arena kws;
    resnet8_arena resnet8;
} arena;

int main()
{
    static float image[RESNET8_INPUT_SIZE], classes[RESNET8_OUTPUT_SIZE];
    static float sound[KWS_INPUT_SIZE], words[KWS_OUTPUT_SIZE];
    for (int i = 0; i < RESNET8_INPUT_SIZE; i++)
        image[i] = static_cast<float>(i * 7 % 255 - 128) / 128.0f;
    for (int i = 0; i < KWS_INPUT_SIZE; i++)
        sound[i] = static_cast<float>(i * 13 % 255);

    resnet8_run_in(&arena.resnet8, image, classes);
    kws_run_in(&arena.kws, sound, words);
    std::printf("class %d, keyword %d\n",
        static_cast<int>(std::max_element(classes, classes + RESNET8_OUTPUT_SIZE) - classes),
        static_cast<int>(std::max_element(words, words + KWS_OUTPUT_SIZE) - words));
    return 0;
}
