/* metrics - the process's counters: written by workers, read by the summary, the ledger and, later, /metrics.
 */
#ifndef RELAY_METRICS_H
#define RELAY_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

struct metrics {
    _Atomic uint64_t published;           /* confirmed, and the deletion committed */
    _Atomic uint64_t retried;             /* moved to or kept in outbox.scheduled */
    _Atomic uint64_t dead_lettered;       /* moved to outbox.dead_letter */
    _Atomic uint64_t held;                /* verdicts HOLD */
    _Atomic uint64_t possible_duplicates; /* in flight when a session or a COMMIT was lost */
    _Atomic uint64_t kept; /* confirmed, and still there: somebody's trigger undid or refused the deletion */
    _Atomic uint64_t kept_whole; /* batches of which nothing went: it is not one row */
    _Atomic uint64_t stuck; /* could not be set aside, and will not be the next time; counted each time */
    _Atomic uint64_t batches;
    _Atomic uint64_t payload_bytes;
    _Atomic uint64_t database_connects; /* attempts */
    _Atomic uint64_t backend_connects;  /* attempts */
    _Atomic uint64_t database_losses;
    _Atomic uint64_t backend_losses;
};

static inline void metrics_add(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static inline uint64_t metrics_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
