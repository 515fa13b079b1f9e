/* pool - the workers of this process and what they share, from start to a bounded end. */
#ifndef RELAY_POOL_H
#define RELAY_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "machine/worker.h"

struct pool;

struct pool_options {
    struct worker_options worker;
    unsigned workers;
    unsigned breaker_failures;
    int64_t breaker_open_min_ms;
    int64_t breaker_open_max_ms;
    int64_t shutdown_timeout_ms;
    int64_t budget; /* messages; INT64_MAX/2 = no limit */
};

/* *out is the caller's; backend, wake and log are borrowed and must outlive it. */
int pool_start(struct pool **out, const struct pool_options *options, struct backend *backend,
               struct wake *wake, const struct log *log, struct err *err) MUST_CHECK;

/* What the workers share, for reports. */
struct shared *pool_shared(struct pool *pool);

/* The number of a worker that has made no progress for longer than any step may take; -1 = all are well. */
int pool_stuck_worker(const struct pool *pool, int64_t now_ms, int64_t *silent_ms);

/*
 * After a stop was asked: waits for the workers, at most shutdown_timeout and what letting go takes. True if
 * all ended by themselves; false if one had to be let go of: then nothing may be freed, and the process must
 * end by _exit().
 */
bool pool_join(struct pool *pool);

void pool_free(struct pool *pool); /* accepts NULL; only after pool_join() returned true */

#endif
