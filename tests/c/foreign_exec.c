/* LD_PRELOAD: this machine executes AArch64 programs, through the emulator in $BOARD_QEMU, as a kernel with
 * binfmt_misc would. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;
typedef int (*exec_function)(const char *, char *const[], char *const[]);

static int is_foreign(const char *path)
{
    unsigned char head[20] = {0};
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = file < 0 ? 0 : read(file, head, sizeof head);
    if (file >= 0)
        close(file);
    return n == sizeof head && !memcmp(head, "\177ELF", 4) && head[18] == 183 && !access(path, X_OK);
}

int execve(const char *path, char *const argv[], char *const env[])
{
    exec_function real = (exec_function)dlsym(RTLD_NEXT, "execve");
    const char *qemu = getenv("BOARD_QEMU");
    if (!qemu || !is_foreign(path))
        return real(path, argv, env);
    size_t n = 0;
    while (argv[n])
        n++;
    char **with = calloc(n + 2, sizeof *with);
    if (!with)
        return ENOMEM;
    with[0] = (char *)qemu;
    with[1] = (char *)path;
    for (size_t i = 1; i < n; i++)
        with[i + 1] = argv[i];
    return real(qemu, with, env);
}

int execvp(const char *file, char *const argv[])
{
    int (*real)(const char *, char *const[]) = (int (*)(const char *, char *const[]))dlsym(RTLD_NEXT, "execvp");
    return strchr(file, '/') ? execve(file, argv, environ) : real(file, argv);
}
