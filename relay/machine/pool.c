#include "machine/pool.h"

#include <stdlib.h>

#include "base/clock.h"

/* Beyond publish_timeout, a step is a connect to the database or the wait for its answers. */
enum { LET_GO_MS = 3000, LOOK_EVERY_MS = 100, STEP_MARGIN_MS = 35000 };

struct pool {
    struct shared shared;
    struct worker **workers;
    unsigned count;
    int64_t shutdown_timeout_ms;
};

static int init_shared(struct shared *shared, const struct pool_options *options, struct backend *backend,
                       struct wake *wake, const struct log *log, struct err *err)
{
    shared->options = options->worker;
    shared->backend = backend;
    shared->wake = wake;
    shared->log = log;
    atomic_store(&shared->budget, options->budget);
    breaker_init(&shared->breaker, options->breaker_failures, options->breaker_open_min_ms,
                 options->breaker_open_max_ms, clock_now_ms());
    suspect_init(&shared->suspect);
    health_init(&shared->health);
    mark_init(&shared->mark);
    shared->options.source.mark = &shared->mark;
    shared->options.source.promotion = &shared->promotion;
    shared->options.source.caution = &shared->caution;
    size_t half = options->workers > 1 ? options->workers / 2 : 1; /* the other half is for who works */
    return channels_new(&shared->channels, options->worker.rules.hasty ? options->workers : half,
                        options->breaker_open_min_ms, options->breaker_open_max_ms, err);
}

static void finish_shared(struct shared *shared)
{
    channels_free(shared->channels);
    mark_finish(&shared->mark);
    health_finish(&shared->health);
    suspect_finish(&shared->suspect);
    breaker_finish(&shared->breaker);
}

int pool_start(struct pool **out, const struct pool_options *options, struct backend *backend,
               struct wake *wake, const struct log *log, struct err *err)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool || !(pool->workers = calloc(options->workers, sizeof(struct worker *)))) {
        free(pool);
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    pool->shutdown_timeout_ms = options->shutdown_timeout_ms;
    if (init_shared(&pool->shared, options, backend, wake, log, err) != 0 ||
        watchdog_start(&pool->shared.watchdog, wake, options->workers, options->shutdown_timeout_ms, err) !=
            0) {
        finish_shared(&pool->shared);
        free((void *)pool->workers);
        free(pool);
        return -1;
    }
    for (; pool->count < options->workers; pool->count++) {
        if (worker_start(&pool->workers[pool->count], &pool->shared, (int)pool->count, err) != 0) {
            wake_halt(wake);
            if (pool_join(pool)) {
                pool_free(pool);
            }
            return -1;
        }
    }
    *out = pool;
    return 0;
}

struct shared *pool_shared(struct pool *pool)
{
    return &pool->shared;
}

int pool_stuck_worker(const struct pool *pool, int64_t now_ms, int64_t *silent_ms)
{
    int64_t limit_ms = pool->shared.options.publish_timeout_ms + STEP_MARGIN_MS;
    for (unsigned at = 0; at < pool->count; at++) {
        *silent_ms = worker_silent_ms(pool->workers[at], now_ms);
        if (*silent_ms > limit_ms) {
            return (int)at;
        }
    }
    return -1;
}

bool pool_join(struct pool *pool)
{
    int64_t deadline_ms = clock_now_ms() + pool->shutdown_timeout_ms + LET_GO_MS;
    bool all = true;
    for (unsigned at = 0; at < pool->count; at++) {
        bool ended = false;
        while (!ended && clock_now_ms() < deadline_ms) {
            ended = worker_join(pool->workers[at], clock_now_ms() + LOOK_EVERY_MS);
            /* A second signal: what has not let go soon after it never will. */
            int64_t let_go_ms = clock_now_ms() + LET_GO_MS;
            if (!ended && wake_is_halting(pool->shared.wake) && let_go_ms < deadline_ms) {
                deadline_ms = let_go_ms;
            }
        }
        all = all && ended;
    }
    return all;
}

void pool_free(struct pool *pool)
{
    if (pool) {
        watchdog_finish(&pool->shared.watchdog);
        finish_shared(&pool->shared);
        free((void *)pool->workers);
        free(pool);
    }
}
