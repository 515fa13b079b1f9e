/*
 * pg_cancel - tells the server to give up a statement that nobody waits for any more: with the socket alone,
 * its process would go on, and so would its locks.
 *
 * libpq can only do that by a connection of its own, which blocks (before libpq 17): a thread does it, and is
 * left alone when it takes longer than a stop may.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "postgres/pg_state.h"

enum { WAIT_MS = 1000 };

struct canceller {
    PGcancel *request;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done;
    unsigned owners; /* the thread, and who waits for it */
};

static void let_go(struct canceller *canceller)
{
    (void)pthread_mutex_lock(&canceller->lock);
    bool last = --canceller->owners == 0;
    (void)pthread_mutex_unlock(&canceller->lock);
    if (last) {
        (void)pthread_cond_destroy(&canceller->changed);
        (void)pthread_mutex_destroy(&canceller->lock);
        PQfreeCancel(canceller->request);
        free(canceller);
    }
}

static void *run(void *context)
{
    struct canceller *canceller = context;
    char unused[256];
    (void)PQcancel(canceller->request, unused, sizeof unused); /* a server that is away needs no telling */
    (void)pthread_mutex_lock(&canceller->lock);
    canceller->done = true;
    (void)pthread_cond_broadcast(&canceller->changed);
    (void)pthread_mutex_unlock(&canceller->lock);
    let_go(canceller);
    return NULL;
}

static void await(struct canceller *canceller)
{
    int64_t until_ms = clock_now_ms() + WAIT_MS;
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    (void)pthread_mutex_lock(&canceller->lock);
    while (!canceller->done && clock_now_ms() < until_ms) {
        (void)pthread_cond_timedwait(&canceller->changed, &canceller->lock, &until);
    }
    (void)pthread_mutex_unlock(&canceller->lock);
}

static struct canceller *canceller_new(PGconn *conn)
{
    struct canceller *canceller = calloc(1, sizeof *canceller);
    PGcancel *request = canceller ? PQgetCancel(conn) : NULL;
    pthread_condattr_t monotonic;
    if (!request || pthread_condattr_init(&monotonic) != 0) {
        PQfreeCancel(request);
        free(canceller);
        return NULL;
    }
    *canceller = (struct canceller){.request = request, .owners = 2};
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&canceller->lock, NULL);
    (void)pthread_cond_init(&canceller->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    return canceller;
}

void pg_cancel_statement(struct pg *pg)
{
    bool waits = pg->unanswered > 0 || pg->sync_pending;
    if (!pg->conn || !waits || PQstatus(pg->conn) != CONNECTION_OK) {
        return;
    }
    pthread_t thread;
    struct canceller *canceller = canceller_new(pg->conn);
    if (!canceller) {
        return; /* memory is short: the server's own limits end it */
    }
    if (pthread_create(&thread, NULL, run, canceller) != 0) {
        canceller->owners = 1; /* likewise */
    } else {
        (void)pthread_detach(thread);
        await(canceller);
    }
    let_go(canceller);
}
