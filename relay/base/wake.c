#include "base/wake.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

int wake_init(struct wake *wake, struct err *err)
{
    *wake = (struct wake){.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                          .halt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    pthread_condattr_t monotonic;
    if (wake->stop_fd < 0 || wake->halt_fd < 0 || pthread_condattr_init(&monotonic) != 0) {
        return err_set(err, ERR_INTERNAL, "cannot make an eventfd: %s", strerror(errno));
    }
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&wake->lock, NULL);
    (void)pthread_cond_init(&wake->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    return 0;
}

void wake_finish(struct wake *wake)
{
    (void)pthread_cond_destroy(&wake->changed);
    (void)pthread_mutex_destroy(&wake->lock);
    (void)close(wake->stop_fd);
    (void)close(wake->halt_fd);
}

static void raise_flag(atomic_bool *flag, int fd)
{
    static const uint64_t one = 1;
    atomic_store(flag, true);
    /* Fails only when the counter is full: then it is readable anyway. */
    (void)!write(fd, &one, sizeof one);
}

void wake_stop(struct wake *wake)
{
    raise_flag(&wake->stop, wake->stop_fd);
    wake_all(wake);
}

void wake_halt(struct wake *wake)
{
    raise_flag(&wake->halt, wake->halt_fd);
    wake_stop(wake);
}

bool wake_is_stopping(const struct wake *wake)
{
    return atomic_load(&wake->stop);
}

bool wake_is_halting(const struct wake *wake)
{
    return atomic_load(&wake->halt);
}

void wake_all(struct wake *wake)
{
    (void)pthread_mutex_lock(&wake->lock);
    wake->changes++;
    (void)pthread_cond_broadcast(&wake->changed);
    (void)pthread_mutex_unlock(&wake->lock);
}

uint64_t wake_changes(struct wake *wake)
{
    (void)pthread_mutex_lock(&wake->lock);
    uint64_t changes = wake->changes;
    (void)pthread_mutex_unlock(&wake->lock);
    return changes;
}

static void wait_locked(struct wake *wake, int64_t deadline_ms)
{
    int64_t most_ms = clock_after(clock_now_ms(), 3600000);
    int64_t until_ms = deadline_ms < most_ms ? deadline_ms : most_ms;
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    (void)pthread_cond_timedwait(&wake->changed, &wake->lock, &until);
}

void wake_wait(struct wake *wake, uint64_t seen, int64_t deadline_ms)
{
    (void)pthread_mutex_lock(&wake->lock);
    while (wake->changes == seen && !wake_is_stopping(wake) && clock_now_ms() < deadline_ms) {
        wait_locked(wake, deadline_ms);
    }
    (void)pthread_mutex_unlock(&wake->lock);
}

void wake_sleep(struct wake *wake, int64_t deadline_ms)
{
    (void)pthread_mutex_lock(&wake->lock);
    while (!wake_is_stopping(wake) && clock_now_ms() < deadline_ms) {
        wait_locked(wake, deadline_ms);
    }
    (void)pthread_mutex_unlock(&wake->lock);
}

bool wake_await(struct wake *wake, const atomic_bool *flag, int64_t deadline_ms)
{
    (void)pthread_mutex_lock(&wake->lock);
    while (!atomic_load(flag) && clock_now_ms() < deadline_ms) {
        wait_locked(wake, deadline_ms);
    }
    (void)pthread_mutex_unlock(&wake->lock);
    return atomic_load(flag);
}
