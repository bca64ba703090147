/* launch ARCHIVE PROGRAM [ARG...]: unpacks ARCHIVE (codegen/peers/portable.py) into the current folder, removes it, and
 * becomes PROGRAM. Brings an interpreter with its libraries to a board that has neither these nor tar.
 *
 * An archive is a sequence of entries: three little-endian 32-bit numbers (bytes of the path; 1 file, 2 executable,
 * 3 symbolic link; bytes of the content), path, content. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST = 1024, EXECUTABLE = 2, LINK = 3 };

static void stop(const char *what)
{
    perror(what);
    exit(2);
}

static void make_folders(char *path)
{
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void read_all(FILE *from, void *to, size_t bytes)
{
    if (fread(to, 1, bytes, from) != bytes)
        stop("archive");
}

static void unpack(FILE *archive)
{
    uint32_t head[3];
    while (fread(head, sizeof head, 1, archive) == 1) {
        char path[LONGEST + 1];
        if (head[0] > LONGEST)
            stop("path");
        read_all(archive, path, head[0]);
        path[head[0]] = 0;
        make_folders(path);
        char *content = malloc((size_t)head[2] + 1);
        if (!content)
            stop("memory");
        read_all(archive, content, head[2]);
        content[head[2]] = 0;
        if (head[1] == LINK) {
            if (symlink(content, path))
                stop(path);
        } else {
            int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, head[1] == EXECUTABLE ? 0700 : 0600);
            size_t done = 0;
            while (file >= 0 && done < head[2]) {
                ssize_t part = write(file, content + done, head[2] - done);
                if (part <= 0)
                    stop(path);
                done += (size_t)part;
            }
            if (file < 0 || close(file))
                stop(path);
        }
        free(content);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    FILE *archive = fopen(argv[1], "rb");
    if (archive) { /* else an earlier run has unpacked it */
        unpack(archive);
        fclose(archive);
        remove(argv[1]);
    }
    execvp(argv[2], argv + 2);
    stop(argv[2]);
}
