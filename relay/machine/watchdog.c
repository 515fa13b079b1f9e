#define _GNU_SOURCE /* POLLRDHUP */
#include "machine/watchdog.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"

/* A backend that keeps its deadline by itself is never interrupted. */
enum { GRACE_MS = 500, TICK_MS = 100 };

static bool is_dead(int fd)
{
    struct pollfd socket = {.fd = fd, .events = POLLRDHUP};
    return fd >= 0 && poll(&socket, 1, 0) > 0 &&
           (socket.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

static enum watch_cause cause_of(const struct watchdog *watchdog, const struct watch *watch)
{
    if (wake_is_halting(watchdog->wake) || (watch->database_fd < 0 && wake_is_stopping(watchdog->wake))) {
        return WATCH_STOP;
    }
    if (is_dead(watch->database_fd)) {
        return WATCH_DATABASE;
    }
    return clock_now_ms() >= watch->deadline_ms + GRACE_MS ? WATCH_DEADLINE : WATCH_NONE;
}

static bool look_at(struct watchdog *watchdog, struct watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    bool active = watch->session != NULL;
    enum watch_cause cause = active ? cause_of(watchdog, watch) : WATCH_NONE;
    if (cause != WATCH_NONE) {
        watch->interrupted = watch->interrupted != WATCH_NONE ? watch->interrupted : cause;
        backend_interrupt(watch->session);
    }
    (void)pthread_mutex_unlock(&watch->lock);
    return active;
}

static void ring(struct watchdog *watchdog)
{
    static const uint64_t one = 1;
    (void)!write(watchdog->bell_fd, &one, sizeof one); /* fails only when it rings already */
}

/* Waits for the bell, the beginning of a stop, or the time. */
static void listen_until(struct watchdog *watchdog, int timeout_ms)
{
    bool stopping =
        wake_is_stopping(watchdog->wake); /* its descriptor stays readable: of no interest any more */
    struct pollfd fds[2] = {{.fd = watchdog->bell_fd, .events = POLLIN},
                            {.fd = stopping ? -1 : watchdog->wake->stop_fd, .events = POLLIN}};
    uint64_t rings = 0;
    if (poll(fds, 2, timeout_ms) > 0 && fds[0].revents) {
        (void)!read(watchdog->bell_fd, &rings, sizeof rings);
    }
}

/* Parked, it costs nothing. It says so before it looks: a call that begins after the look finds the bell. */
static bool look_at_all(struct watchdog *watchdog)
{
    bool active = false;
    atomic_store(&watchdog->parked, true);
    for (size_t at = 0; at < watchdog->count; at++) {
        active |= look_at(watchdog, &watchdog->watches[at]);
    }
    if (active) {
        atomic_store(&watchdog->parked, false);
    }
    return active;
}

static void *run(void *context)
{
    struct watchdog *watchdog = context;
    int64_t halt_at_ms = CLOCK_NEVER_MS;
    while (!atomic_load(&watchdog->done)) {
        bool stopping = wake_is_stopping(watchdog->wake);
        if (stopping && halt_at_ms == CLOCK_NEVER_MS) {
            halt_at_ms = clock_after(clock_now_ms(), watchdog->shutdown_timeout_ms);
        }
        if (clock_now_ms() >= halt_at_ms && !wake_is_halting(watchdog->wake)) {
            wake_halt(watchdog->wake);
        }
        listen_until(watchdog, look_at_all(watchdog) || stopping ? TICK_MS : -1);
    }
    return NULL;
}

int watchdog_start(struct watchdog *watchdog, struct wake *wake, size_t workers, int64_t shutdown_timeout_ms,
                   struct err *err)
{
    *watchdog = (struct watchdog){.wake = wake, .count = workers, .shutdown_timeout_ms = shutdown_timeout_ms};
    watchdog->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watchdog->bell_fd < 0) {
        return err_set(err, ERR_INTERNAL, "cannot make an eventfd: %s", strerror(errno));
    }
    watchdog->watches = calloc(workers, sizeof *watchdog->watches);
    if (!watchdog->watches) {
        (void)close(watchdog->bell_fd);
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    for (size_t at = 0; at < workers; at++) {
        (void)pthread_mutex_init(&watchdog->watches[at].lock, NULL);
    }
    int fault = pthread_create(&watchdog->thread, NULL, run, watchdog);
    if (fault != 0) {
        free(watchdog->watches);
        (void)close(watchdog->bell_fd);
        return err_set(err, ERR_INTERNAL, "cannot start a thread: %s", strerror(fault));
    }
    return 0;
}

void watchdog_finish(struct watchdog *watchdog)
{
    atomic_store(&watchdog->done, true);
    ring(watchdog);
    (void)pthread_join(watchdog->thread, NULL);
    for (size_t at = 0; at < watchdog->count; at++) {
        (void)pthread_mutex_destroy(&watchdog->watches[at].lock);
    }
    free(watchdog->watches);
    (void)close(watchdog->bell_fd);
}

void watchdog_begin(struct watchdog *watchdog, size_t number, struct session *session, int64_t deadline_ms,
                    int database_fd)
{
    struct watch *watch = &watchdog->watches[number];
    (void)pthread_mutex_lock(&watch->lock);
    watch->session = session;
    watch->deadline_ms = deadline_ms;
    watch->database_fd = database_fd;
    watch->interrupted = WATCH_NONE;
    (void)pthread_mutex_unlock(&watch->lock);
    if (atomic_load(&watchdog->parked)) {
        ring(watchdog);
    }
}

enum watch_cause watchdog_end(struct watchdog *watchdog, size_t number)
{
    struct watch *watch = &watchdog->watches[number];
    (void)pthread_mutex_lock(&watch->lock);
    watch->session = NULL;
    enum watch_cause interrupted = watch->interrupted;
    (void)pthread_mutex_unlock(&watch->lock);
    return interrupted;
}
