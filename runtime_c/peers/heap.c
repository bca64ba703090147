/* Counts the memory that a program holds: loaded before an engine's own libraries (LD_PRELOAD), or linked with
 * -Wl,--wrap=malloc and so on and -DCG_WRAP into a static program.
 *
 * Heap blocks count with their usable size, from the call that makes them to the call that frees them. Maps that a
 * program makes itself count at the end: anonymous ones with the pages that were touched, files with their length.
 * The allocator's own maps do not pass through here. Not safe for threads that allocate at the same time: engines
 * run with one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAPS = 4096, EARLY_BYTES = 65536, PAGES = 4096 };

static struct map {
    char *begin;
    size_t bytes;
    int is_file;
} maps[MAPS];
static int map_count;
static long long held, most, base;

static void grow(long long bytes)
{
    held += bytes;
    if (held > most)
        most = held;
}

static void *taken(void *block)
{
    if (block)
        grow((long long)malloc_usable_size(block));
    return block;
}

#ifdef CG_WRAP
#define NAME(f) __wrap_##f
#define REAL(f) __real_##f
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void __real_free(void *);
void *__real_aligned_alloc(size_t, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void *__real_memalign(size_t, size_t);
void *__real_mmap(void *, size_t, int, int, int, off_t);
int __real_munmap(void *, size_t);
void *NAME(malloc)(size_t);
void *NAME(calloc)(size_t, size_t);
void *NAME(realloc)(void *, size_t);
void NAME(free)(void *);
void *NAME(aligned_alloc)(size_t, size_t);
int NAME(posix_memalign)(void **, size_t, size_t);
void *NAME(memalign)(size_t, size_t);
void *NAME(mmap)(void *, size_t, int, int, int, off_t);
void *NAME(mmap64)(void *, size_t, int, int, int, off_t);
int NAME(munmap)(void *, size_t);
static int ready(void) { return 1; }
static int is_early(const void *block) { return !block; }
static void *early_block(size_t bytes)
{
    (void)bytes;
    return NULL;
}
#else
#define NAME(f) f
#define REAL(f) real_##f
static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t), *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static void *(*real_aligned_alloc)(size_t, size_t), *(*real_memalign)(size_t, size_t);
static int (*real_posix_memalign)(void **, size_t, size_t);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);
static int (*real_munmap)(void *, size_t);
static int starting;
/* dlsym may itself allocate before it has found malloc. */
static char early[EARLY_BYTES] __attribute__((aligned(16)));
static size_t early_used;

static void find(void *target, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(target, &found, sizeof found);
}

static int ready(void)
{
    if (real_munmap)
        return 1;
    if (starting)
        return 0;
    starting = 1;
    find(&real_malloc, "malloc");
    find(&real_calloc, "calloc");
    find(&real_realloc, "realloc");
    find(&real_free, "free");
    find(&real_aligned_alloc, "aligned_alloc");
    find(&real_memalign, "memalign");
    find(&real_posix_memalign, "posix_memalign");
    find(&real_mmap, "mmap");
    find(&real_munmap, "munmap");
    starting = 0;
    return 1;
}

static int is_early(const void *block)
{
    return !block || ((const char *)block >= early && (const char *)block < early + EARLY_BYTES);
}

static void *early_block(size_t bytes)
{
    size_t at = early_used;
    early_used += (bytes + 15) & ~(size_t)15;
    return early_used <= EARLY_BYTES ? early + at : NULL;
}
#endif

void *NAME(malloc)(size_t bytes)
{
    return ready() ? taken(REAL(malloc)(bytes)) : early_block(bytes);
}

void *NAME(calloc)(size_t count, size_t bytes)
{
    return ready() ? taken(REAL(calloc)(count, bytes)) : early_block(count * bytes);
}

void NAME(free)(void *block)
{
    if (is_early(block))
        return;
    grow(-(long long)malloc_usable_size(block));
    REAL(free)(block);
}

void *NAME(realloc)(void *block, size_t bytes)
{
    if (is_early(block)) {
        void *fresh = NAME(malloc)(bytes);
        if (fresh && block)
            memcpy(fresh, block, bytes);
        return fresh;
    }
    long long before = (long long)malloc_usable_size(block);
    void *fresh = REAL(realloc)(block, bytes);
    if (fresh || !bytes)
        grow((fresh ? (long long)malloc_usable_size(fresh) : 0) - before);
    return fresh;
}

void *NAME(aligned_alloc)(size_t align, size_t bytes)
{
    return ready() ? taken(REAL(aligned_alloc)(align, bytes)) : NULL;
}

void *NAME(memalign)(size_t align, size_t bytes)
{
    return ready() ? taken(REAL(memalign)(align, bytes)) : NULL;
}

int NAME(posix_memalign)(void **block, size_t align, size_t bytes)
{
    if (!ready())
        return ENOMEM;
    int failed = REAL(posix_memalign)(block, align, bytes);
    if (!failed)
        taken(*block);
    return failed;
}

void *NAME(mmap)(void *at, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if (!ready())
        return MAP_FAILED;
    char *begin = REAL(mmap)(at, bytes, protection, flags, file, offset);
    if (begin != MAP_FAILED && map_count < MAPS)
        maps[map_count++] = (struct map){begin, bytes, !(flags & MAP_ANONYMOUS)};
    return begin;
}

/* What mmap is called where programs are compiled for large files. */
void *NAME(mmap64)(void *at, size_t bytes, int protection, int flags, int file, off_t offset)
{
    return NAME(mmap)(at, bytes, protection, flags, file, offset);
}

/* Unmapping may cut a map at either end, or in two; the part after a hole is forgotten. */
int NAME(munmap)(void *at, size_t bytes)
{
    char *begin = at, *end = begin + bytes;
    for (int i = 0; i < map_count; i++) {
        struct map *m = &maps[i];
        if (begin <= m->begin && end >= m->begin + m->bytes)
            *m = maps[--map_count], i--;
        else if (begin <= m->begin && end > m->begin)
            m->bytes -= (size_t)(end - m->begin), m->begin = end;
        else if (begin > m->begin && begin < m->begin + m->bytes)
            m->bytes = (size_t)(begin - m->begin);
    }
    return ready() ? REAL(munmap)(at, bytes) : -1;
}

static long long mapped(void)
{
    long long total = 0;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < map_count; i++) {
        if (maps[i].is_file) {
            total += (long long)maps[i].bytes;
            continue;
        }
        for (size_t done = 0; done < maps[i].bytes; done += PAGES * page) {
            unsigned char touched[PAGES] = {0};
            size_t rest = maps[i].bytes - done, part = rest < PAGES * page ? rest : PAGES * page;
            if (mincore(maps[i].begin + done, part, touched))
                continue;
            for (size_t p = 0; p < (part + page - 1) / page; p++)
                total += touched[p] & 1 ? (long long)page : 0;
        }
    }
    return total;
}

/* What is held from here on counts. */
void cg_heap_begin(void);
void cg_heap_begin(void)
{
    base = held + mapped();
    most = held;
}

/* Bytes: the most that the heap held since cg_heap_begin, and the maps as they are now. */
long long cg_heap_peak(void);
long long cg_heap_peak(void)
{
    return most + mapped() - base;
}
