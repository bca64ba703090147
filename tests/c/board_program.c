/* What a board may be asked to run: the first argument says how it behaves. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void copy(const char *from, const char *to)
{
    char buffer[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    for (size_t n; in && out && (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        fwrite(buffer, 1, n, out);
    if (in)
        fclose(in);
    if (out)
        fclose(out);
}

/* Each call counts in the file `turn`, so that the second may behave otherwise than the first. */
static int next_turn(void)
{
    int turn = 0;
    FILE *f = fopen("turn", "r");
    if (f) {
        if (fscanf(f, "%d", &turn) != 1)
            turn = 0;
        fclose(f);
    }
    f = fopen("turn", "w");
    if (f) {
        fprintf(f, "%d", turn + 1);
        fclose(f);
    }
    return turn;
}

/* Write zeros until the disk is full, at most 64 MiB. Returns the exit code. */
static int fill(const char *to)
{
    static const char block[65536];
    FILE *out = fopen(to, "wb");
    int written = 0;
    while (out && written < 1024 && fwrite(block, sizeof block, 1, out) == 1 && !fflush(out))
        written++;
    if (written == 1024 && !fclose(out)) {
        puts("{\"written\": 67108864}");
        return 0;
    }
    printf("{\"error\": \"%s\"}\n", strerror(errno));
    return 1;
}

static void print_runs(int steady)
{
    printf("{\"runs_ns\": [");
    for (int i = 0; i < 20; i++)
        printf("%s%d", i ? ", " : "", steady ? 1000000 + i : 1000000 * (1 + i % 7));
    printf("], \"turn\": \"%s\"}\n", steady ? "steady" : "noisy");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "copy")) {
        copy(argv[2], argv[3]);
        printf("{\"args\": %d}\n", argc);
    } else if (!strcmp(what, "fill")) {
        return fill(argv[2]);
    } else if (!strcmp(what, "hang")) {
        for (;;)
            sleep(1);
    } else if (!strcmp(what, "flood")) {
        for (;;)
            puts("garbage, and more of it, and more of it, and more of it, and more of it");
    } else if (!strcmp(what, "garbage")) {
        for (int i = 1; i < 256; i++)
            putchar(i);
    } else if (!strcmp(what, "words")) {
        puts("{\"runs_ns\": [\"fast\", \"faster\"]}");
    } else if (!strcmp(what, "trap")) {
        __builtin_trap();
    } else if (!strcmp(what, "env")) {
        const char *v = getenv(argv[2]);
        printf("{\"value\": \"%s\"}\n", v ? v : "");
    } else if (!strcmp(what, "steady")) {
        print_runs(1);
    } else if (!strcmp(what, "noisy")) {
        print_runs(0);
    } else if (!strcmp(what, "trials")) { /* the first is steady in the first turn only, the second never */
        int first = !next_turn();
        printf("{\"runs_ns\": [[%s], [5, 9, 5, 9, 5, 9, 5, 9]]}\n",
               first ? "7, 7, 7, 7, 7, 7, 7, 7" : "8, 3, 8, 3, 8, 3, 8, 3");
    } else if (!strcmp(what, "settles")) {
        print_runs(next_turn() > 0);
    } else {
        return 3;
    }
    return 0;
}
