/* What `codegen doctor` compiles and runs: one fused multiply-add on four lanes and printf. Prints 6 and a newline.
 * Not part of any generated library. */
#include <stdio.h>

#include "cg_neon.h"

int main(void)
{
    float32x4_t two = vdupq_n_f32(2.0f);
    printf("%d\n", (int)vgetq_lane_f32(vfmaq_f32(two, two, two), 3));
    return 0;
}
