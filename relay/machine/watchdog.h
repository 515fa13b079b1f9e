/*
 * watchdog - one thread that ends what would never return: it interrupts a backend call whose deadline has
 * passed, or whose worker's database connection has died, and lets go of everything when a stop takes longer
 * than it may.
 */
#ifndef RELAY_WATCHDOG_H
#define RELAY_WATCHDOG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/wake.h"
#include "plugin/backend.h"

/* Why a call was interrupted; only the first is the broker's fault. */
enum watch_cause { WATCH_NONE = 0, WATCH_DEADLINE, WATCH_DATABASE, WATCH_STOP };

/* What one worker's backend call is bound by. */
struct watch {
    pthread_mutex_t lock;
    struct session *session; /* NULL = no call runs */
    int64_t deadline_ms;
    int database_fd; /* its death interrupts; -1 = no batch in hand: a stop interrupts, too */
    enum watch_cause interrupted;
};

struct watchdog {
    struct wake *wake;
    int bell_fd; /* rung when a call begins while the watchdog is parked, and at the end */
    struct watch *watches;
    size_t count;
    int64_t shutdown_timeout_ms;
    atomic_bool parked;
    atomic_bool done;
    pthread_t thread;
};

int watchdog_start(struct watchdog *watchdog, struct wake *wake, size_t workers, int64_t shutdown_timeout_ms,
                   struct err *err) MUST_CHECK;
void watchdog_finish(struct watchdog *watchdog); /* after the workers have ended */

/* Around one backend call of worker `number`. end: why the call was interrupted, if it was; its session is
 * LOST then. */
void watchdog_begin(struct watchdog *watchdog, size_t number, struct session *session, int64_t deadline_ms,
                    int database_fd);
enum watch_cause watchdog_end(struct watchdog *watchdog, size_t number);

#endif
