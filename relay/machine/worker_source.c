/* worker_source - connecting to the database, and losing it. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "machine/worker_state.h"

/* UNANSWERED_MS: what fails sooner has failed, and was not waited for in vain. DOUBT_MS: longer than the next
 * batch and its COMMIT take to tell. */
enum { DATABASE_CONNECT_MS = 30000, UNANSWERED_MS = 10000, DOUBT_MS = 40000 };

void worker_lose_source(struct worker *worker, const struct err *why)
{
    struct shared *shared = worker->shared;
    if (worker->source) {
        metrics_add(&shared->metrics.database_losses, 1);
    }
    source_close(worker->source);
    worker->source = NULL;
    batch_clear(&worker->batch);
    worker_end_turn(worker);
    worker_set_working(worker, false);
    if (why->class != ERR_STOPPED && health_failed(&shared->health, HEALTH_DATABASE, why, clock_now_ms())) {
        bool answers = why->sqlstate[0] != '\0' && why->class != ERR_CONNECTION;
        LOG(shared->log, LOG_WARNING,
            answers ? "the database refuses, trying on" : "no connection to the database",
            log_number("worker", worker->number), log_text("error", why->text));
    }
    worker->database_not_before_ms += backoff_next_ms(&worker->database_backoff);
    /* Who cannot reach the database probes nothing: let another. */
    breaker_abandon(&shared->breaker, worker->number);
    if (suspect_abandon(&shared->suspect, worker->number)) {
        wake_all(shared->wake);
    }
}

bool worker_have_source(struct worker *worker)
{
    struct shared *shared = worker->shared;
    if (worker->source) {
        return true;
    }
    if (clock_now_ms() < worker->database_not_before_ms) {
        worker_wait_until(worker, worker->database_not_before_ms);
        return false;
    }
    struct err err = {0};
    worker->database_not_before_ms = clock_now_ms() + CONNECT_AT_MOST_EVERY_MS;
    metrics_add(&shared->metrics.database_connects, 1);
    if (source_open(&worker->source, &shared->options.source, shared->wake->stop_fd, shared->wake->halt_fd,
                    clock_now_ms() + DATABASE_CONNECT_MS, &err) != 0) {
        worker_lose_source(worker, &err);
        return false;
    }
    return true;
}

/* LIKE's signs as operators write them. */
static void show_patterns(char *out, size_t out_bytes, const char *like)
{
    struct text shown;
    text_init(&shown, out_bytes);
    for (; *like; like++) {
        const char *sign = *like == '%' ? "*" : like;
        text_add_bytes(&shown, (struct bytes){sign, *like != '\\'});
    }
    (void)snprintf(out, out_bytes, "%s", text_get(&shown)); /* the log escapes it */
    text_finish(&shown);
}

/* Pauses and their ends are told, once in a process. */
static void tell_pauses(struct worker *worker)
{
    enum { SHOWN_BYTES = 400 };
    const char *channels = source_paused(worker->source);
    const char *patterns = source_paused_patterns(worker->source);
    bool any = strcmp(channels, "{}") != 0 || strcmp(patterns, "{}") != 0;
    uint64_t hash = any ? bytes_hash(bytes_of(channels)) * 31 + bytes_hash(bytes_of(patterns)) : 0;
    if (atomic_load(&worker->shared->paused) == hash ||
        atomic_exchange(&worker->shared->paused, hash) == hash) {
        return;
    }
    char shown[SHOWN_BYTES];
    char like[SHOWN_BYTES];
    (void)snprintf(shown, sizeof shown, "%s", channels);
    show_patterns(like, sizeof like, patterns);
    LOG(worker->shared->log, LOG_INFO,
        any ? "an operator has paused channels" : "no pause is in force any more",
        log_text("channels", shown), log_text("patterns", like));
}

void worker_commits(struct worker *worker, bool done, int64_t took_ms)
{
    if (done) {
        atomic_store(&worker->shared->doubt_until_ms, 0);
        worker_source_works(worker);
    } else if (took_ms > UNANSWERED_MS) {
        atomic_store(&worker->shared->doubt_until_ms, clock_now_ms() + DOUBT_MS);
    }
}

void worker_source_works(struct worker *worker)
{
    tell_pauses(worker);
    if (clock_now_ms() < atomic_load(&worker->shared->doubt_until_ms)) {
        return;
    }
    backoff_reset(&worker->database_backoff);
    if (health_works(&worker->shared->health, HEALTH_DATABASE)) {
        LOG(worker->shared->log, LOG_INFO, "connected to the database", log_number("worker", worker->number));
    }
}
