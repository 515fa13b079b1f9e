#define _GNU_SOURCE /* POLLRDHUP */
#include "watchdog.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* A backend that keeps its deadline by itself is never interrupted. */
enum { GRACE_MS = 500, TICK_MS = 100 };

static bool is_dead(int fd)
{
    struct pollfd socket = {.fd = fd, .events = POLLRDHUP};
    return fd >= 0 && poll(&socket, 1, 0) > 0 &&
           (socket.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static bool look_at(struct watchdog *watchdog, struct watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    bool active = watch->session != NULL;
    if (active && (clock_now_ms() >= watch->deadline_ms + GRACE_MS || wake_is_halting(watchdog->wake) ||
                   is_dead(watch->database_fd))) {
        watch->interrupted = true;
        backend_interrupt(watch->session);
    }
    (void)pthread_mutex_unlock(&watch->lock);
    return active;
}

/* Waits for the next look; parks, to cost nothing, while no call runs. */
static void pause_until_next(struct watchdog *watchdog, bool active, uint64_t seen, int64_t halt_at_ms)
{
    if (wake_is_stopping(watchdog->wake)) {
        (void)wake_await(watchdog->wake, &watchdog->done, clock_now_ms() + TICK_MS);
    } else if (active) {
        wake_sleep(watchdog->wake, clock_now_ms() + TICK_MS);
    } else {
        atomic_store(&watchdog->parked, true);
        wake_wait(watchdog->wake, seen, halt_at_ms);
        atomic_store(&watchdog->parked, false);
    }
}

static void *run(void *context)
{
    struct watchdog *watchdog = context;
    int64_t halt_at_ms = CLOCK_NEVER_MS;
    while (!atomic_load(&watchdog->done)) {
        uint64_t seen = wake_changes(watchdog->wake);
        if (wake_is_stopping(watchdog->wake) && halt_at_ms == CLOCK_NEVER_MS) {
            halt_at_ms = clock_after(clock_now_ms(), watchdog->shutdown_timeout_ms);
        }
        if (clock_now_ms() >= halt_at_ms && !wake_is_halting(watchdog->wake)) {
            wake_halt(watchdog->wake);
        }
        bool active = false;
        for (size_t at = 0; at < watchdog->count; at++) {
            active |= look_at(watchdog, &watchdog->watches[at]);
        }
        pause_until_next(watchdog, active, seen, halt_at_ms);
    }
    return NULL;
}

int watchdog_start(struct watchdog *watchdog, struct wake *wake, size_t workers, int64_t shutdown_timeout_ms,
                   struct err *err)
{
    *watchdog = (struct watchdog){.wake = wake, .count = workers, .shutdown_timeout_ms = shutdown_timeout_ms};
    watchdog->watches = calloc(workers, sizeof *watchdog->watches);
    if (!watchdog->watches) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    for (size_t at = 0; at < workers; at++) {
        (void)pthread_mutex_init(&watchdog->watches[at].lock, NULL);
    }
    int fault = pthread_create(&watchdog->thread, NULL, run, watchdog);
    if (fault != 0) {
        free(watchdog->watches);
        return err_set(err, ERR_INTERNAL, "cannot start a thread: %s", strerror(fault));
    }
    return 0;
}

void watchdog_finish(struct watchdog *watchdog)
{
    atomic_store(&watchdog->done, true);
    wake_all(watchdog->wake);
    (void)pthread_join(watchdog->thread, NULL);
    for (size_t at = 0; at < watchdog->count; at++) {
        (void)pthread_mutex_destroy(&watchdog->watches[at].lock);
    }
    free(watchdog->watches);
}

void watchdog_begin(struct watchdog *watchdog, size_t number, struct session *session, int64_t deadline_ms,
                    int database_fd)
{
    struct watch *watch = &watchdog->watches[number];
    (void)pthread_mutex_lock(&watch->lock);
    watch->session = session;
    watch->deadline_ms = deadline_ms;
    watch->database_fd = database_fd;
    watch->interrupted = false;
    (void)pthread_mutex_unlock(&watch->lock);
    if (atomic_load(&watchdog->parked)) {
        wake_all(watchdog->wake);
    }
}

bool watchdog_end(struct watchdog *watchdog, size_t number)
{
    struct watch *watch = &watchdog->watches[number];
    (void)pthread_mutex_lock(&watch->lock);
    watch->session = NULL;
    bool interrupted = watch->interrupted;
    (void)pthread_mutex_unlock(&watch->lock);
    return interrupted;
}
