/* The threads of kws without kws: every part of every job runs once, and all have run when the call returns. Counters
 * are plain memory, so that a thread sanitizer sees what the pool does not order. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kws_threads.h"

enum { JOBS = 3000, MOST_PARTS = 9 };

static kws_threads threads;
static int runs[MOST_PARTS];

#ifdef WRAPPED
/* Linked with --wrap=pthread_create: so many more threads can be started. */
static int allowed;
int __real_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    return allowed-- > 0 ? __real_pthread_create(id, attr, start, arg) : EAGAIN;
}

static int no_more_threads(void)
{
    for (int workers = 0; workers < KWS_THREADS - 1; workers++) {
        allowed = workers;
        if (kws_threads_init(&threads, KWS_THREADS) != EAGAIN)
            return 1;
    }
    allowed = 1000;
    return 0;
}
#else
static int no_more_threads(void)
{
    return 0;
}
#endif

static void count(void *args, int part)
{
    int *counters = args;
    counters[part]++;
}

static int jobs(int size)
{
    const struct timespec pause = {0, 2000000};
    if (kws_threads_init(&threads, size))
        return 1;
    for (int job = 0; job < JOBS; job++) {
        int parts = job % (MOST_PARTS + 1);
        memset(runs, 0, sizeof runs);
        kws_threads_for(&threads, count, runs, parts);
        for (int part = 0; part < MOST_PARTS; part++)
            if (runs[part] != (part < parts))
                return 1;
        if (job % 300 == 0)
            nanosleep(&pause, NULL); /* the workers fall asleep */
    }
    kws_threads_destroy(&threads);
    return 0;
}

int main(void)
{
    if (kws_threads_init(&threads, 0) != EINVAL || kws_threads_init(&threads, -1) != EINVAL ||
        kws_threads_init(&threads, KWS_THREADS + 1) != EINVAL) {
        printf("a wrong number of threads is taken\n");
        return 1;
    }
    if (no_more_threads()) {
        printf("a thread that cannot be started is not reported\n");
        return 1;
    }
    for (int size = 1; size <= KWS_THREADS; size++)
        if (jobs(size)) {
            printf("parts are lost or run twice with %d threads\n", size);
            return 1;
        }
    return 0;
}
