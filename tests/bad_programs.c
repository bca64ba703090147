/* Bench programs that go wrong under the virtual board: WHAT says how. */
static void region(long begin, long id)
{
    register long which __asm__("x0") = 0x43470000 + begin;
    register long who __asm__("x1") = id;
    register long number __asm__("x8") = 141;
    __asm__ volatile("svc #0" : "+r"(which) : "r"(who), "r"(number) : "memory");
}

int main(void)
{
    enum { OPEN = 1, TRAP, HANG, SDOT };
    region(1, 0);
    region(1, 1);
    if (WHAT == TRAP)
        __builtin_trap();
    while (WHAT == HANG)
        __asm__ volatile("");
    for (int i = 0; WHAT == SDOT && i < 1000; i++)
        __asm__ volatile(".arch armv8.2-a+dotprod\n sdot v0.4s, v1.16b, v2.16b" ::: "v0");
    region(0, 1);
    if (WHAT != OPEN)
        region(0, 0);
    return __builtin_puts("{}") < 0;
}
