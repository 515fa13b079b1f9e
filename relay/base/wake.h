/*
 * wake - how threads wait: until a deadline, a change that concerns them, or a stop.
 *
 * stop: finish the batch in flight and end. halt: let go of everything at once. Both only ever go one way;
 * each has a descriptor that becomes readable, for waits inside poll(2).
 */
#ifndef RELAY_WAKE_H
#define RELAY_WAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct wake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t changes;
    atomic_bool stop;
    atomic_bool halt;
    int stop_fd;
    int halt_fd;
};

int wake_init(struct wake *wake, struct err *err) MUST_CHECK;
void wake_finish(struct wake *wake);

void wake_stop(struct wake *wake);
void wake_halt(struct wake *wake); /* implies a stop */
bool wake_is_stopping(const struct wake *wake);
bool wake_is_halting(const struct wake *wake);

/* Something changed that waiting threads should look at. */
void wake_all(struct wake *wake);

/* What has changed so far; taken before looking, handed to wake_wait(), no change in between is missed. */
uint64_t wake_changes(struct wake *wake);

/* Returns at the deadline, at a change since `seen`, or at a stop. */
void wake_wait(struct wake *wake, uint64_t seen, int64_t deadline_ms);

/* Returns at the deadline or at a stop, whatever else changes. */
void wake_sleep(struct wake *wake, int64_t deadline_ms);

/* Waits for a flag that somebody sets before wake_all(), stop or no stop; false if the deadline came first.
 */
bool wake_await(struct wake *wake, const atomic_bool *flag, int64_t deadline_ms);

#endif
