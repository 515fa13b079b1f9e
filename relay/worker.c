/* A worker claims a batch of rows, asks the backend to publish it, settles each row by the verdict it got,
 * and commits. */
#define _GNU_SOURCE /* pthread_setname_np */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "worker_state.h"

enum { RESTING_MAX_BYTES = 256 << 10 };

/* ---- publish, settle, commit ---- */

/* What remains unsettled after a loss may or may not have arrived. */
static void count_possible_duplicates(struct worker *worker, size_t rows, const char *why)
{
    if (rows > 0) {
        metrics_add(&worker->shared->metrics.possible_duplicates, rows);
        LOG(worker->shared->log, LOG_WARNING, "possible duplicates", log_number("worker", worker->number),
            log_number("at_most", (int64_t)rows), log_text("after", why));
    }
}

static void after_publish(struct worker *worker, enum outbox_session_state state, int64_t retry_after_ms,
                          const struct err *err, const struct tally *tally)
{
    struct shared *shared = worker->shared;
    if (tally->confirmed > 0 || (state == OUTBOX_SESSION_OK && worker->probing)) {
        worker_session_works(worker);
    }
    if (state == OUTBOX_SESSION_OK) {
        return;
    }
    count_possible_duplicates(worker, tally->unsettled, err->text);
    if (state == OUTBOX_SESSION_BUSY) {
        worker_pause_session(worker, err, retry_after_ms);
        return;
    }
    worker_lose_session(worker, err);
    if (tally->unsettled > 0 && worker->batch.lent.count > 1 && !worker->request.scheduled) {
        suspect_begin(&shared->suspect, tally->unsettled);
    }
}

/* A text that lives as long as the batch: the rows' errors point to it until they are settled. */
static const char *keep_text(struct batch *batch, const char *text)
{
    const char *copy = arena_copy(&batch->arena, bytes_of(text));
    return copy ? copy : "the session was lost";
}

static enum outbox_session_state publish(struct worker *worker, struct tally *tally)
{
    struct shared *shared = worker->shared;
    struct err err = {0};
    int64_t retry_after_ms = 0;
    int64_t began_ms = clock_now_ms();
    int64_t deadline_ms = began_ms + shared->options.publish_timeout_ms;
    watchdog_begin(&shared->watchdog, (size_t)worker->number, worker->session, deadline_ms,
                   source_socket(worker->source));
    enum outbox_session_state state =
        backend_publish(worker->session, &worker->batch, deadline_ms, &retry_after_ms, &err);
    if (watchdog_end(&shared->watchdog, (size_t)worker->number) && state != OUTBOX_SESSION_LOST) {
        state = OUTBOX_SESSION_LOST;
        (void)err_set(&err, ERR_CONNECTION, "the call was interrupted after its deadline");
    }
    worker->check_at_ms = clock_now_ms() + CHECK_EVERY_MS;
    const struct verdict_context context = {
        .rules = &shared->options.rules,
        .channels = shared->channels,
        .backoff = &worker->retry_backoff,
        .log = shared->log,
        .began_ms = began_ms,
        .now_ms = clock_now_ms(),
        .loss = state == OUTBOX_SESSION_LOST ? keep_text(&worker->batch, err.text) : NULL,
        .single = worker->single,
    };
    verdict_decide(&worker->batch, &context, tally);
    after_publish(worker, state, retry_after_ms, &err, tally);
    return state;
}

static void committed(struct worker *worker, const struct tally *tally)
{
    struct shared *shared = worker->shared;
    metrics_add(&shared->metrics.published, tally->confirmed);
    metrics_add(&shared->metrics.retried, tally->retried);
    metrics_add(&shared->metrics.dead_lettered, tally->buried);
    metrics_add(&shared->metrics.held, tally->held);
    metrics_add(&shared->metrics.payload_bytes, tally->payload_bytes);
    metrics_add(&shared->metrics.batches, 1);
    if (tally->next_due_ms >= 0) {
        int64_t due_ms = clock_now_ms() + tally->next_due_ms;
        int64_t next_ms = atomic_load(&shared->next_scheduled_ms);
        while (due_ms < next_ms &&
               !atomic_compare_exchange_weak(&shared->next_scheduled_ms, &next_ms, due_ms)) {
        }
    }
}

/* The next claim may share the round trip of the COMMIT only while nothing says no. */
static bool may_claim_at_once(struct worker *worker, enum outbox_session_state state)
{
    int64_t unused_ms = 0;
    int64_t unused_seq = 0;
    struct shared *shared = worker->shared;
    if (state != OUTBOX_SESSION_OK || wake_is_stopping(shared->wake) ||
        breaker_ask(&shared->breaker, worker->number, clock_now_ms(), &unused_ms) != BREAKER_PASS ||
        suspect_ask(&shared->suspect, worker->number, false, &unused_seq) != SUSPECT_NONE) {
        return false;
    }
    worker->single = false;
    worker->probing = false;
    return true;
}

static void settle_and_commit(struct worker *worker, enum outbox_session_state state, struct tally *tally)
{
    struct shared *shared = worker->shared;
    struct err err = {0};
    bool done = false;
    size_t claimed = worker->batch.count;
    int64_t single_seq = worker->single && worker->batch.count > 0 ? worker->batch.rows[0].message.seq : 0;
    bool refused = false;
    int result = source_settle(worker->source, &worker->batch, &refused, &err);
    bool next = false;
    if (result == 0) {
        batch_drop_payloads(&worker->batch);
        if (refused) {
            /* The rows are still there: they must not be counted, nor claimed again at full speed. */
            tally->buried = tally->retried = 0;
            worker->last_poll_ms = worker->poll_ms = shared->options.poll_max_ms;
        }
        next = !refused && may_claim_at_once(worker, state) && worker_plan_claim(worker);
        result = source_commit(worker->source, next ? &worker->request : NULL, &worker->batch, &done, &err);
    }
    worker_return_budget(shared, done ? claimed - tally->confirmed - tally->buried : claimed);
    if (single_seq > 0 && suspect_tried(&shared->suspect, worker->number, single_seq)) {
        wake_all(shared->wake);
    }
    if (done) {
        committed(worker, tally);
    } else {
        count_possible_duplicates(worker, tally->confirmed, err.text);
    }
    if (result != 0) {
        worker_return_budget(shared, next ? worker->request.max_messages : 0);
        worker_lose_source(worker, &err);
    } else if (next) {
        worker_claimed(worker);
    }
    worker_set_working(worker, worker->batch.count > 0);
}

/* ---- the loop ---- */

static void loop(struct worker *worker)
{
    while (!wake_is_stopping(worker->shared->wake)) {
        if (worker->batch.count == 0) {
            if (!worker_may_claim(worker) || !worker_have_session(worker) || !worker_have_source(worker)) {
                continue;
            }
            if (worker->poll_ms > 0) {
                worker_wait_for_messages(worker);
                continue;
            }
            if (!worker_claim(worker)) {
                continue;
            }
        }
        struct tally tally;
        enum outbox_session_state state = publish(worker, &tally);
        settle_and_commit(worker, state, &tally);
    }
}

static void *run(void *context)
{
    struct worker *worker = context;
    struct shared *shared = worker->shared;
    struct err err = {0};
    char name[16];
    (void)snprintf(name, sizeof name, "worker %d", worker->number % 1000);
    (void)pthread_setname_np(pthread_self(), name);
    if (backend_session_new(&worker->session, shared->backend, &err) != 0 ||
        batch_init(&worker->batch, shared->options.batch_messages, &err) != 0) {
        LOG(shared->log, LOG_ERROR, "worker cannot start", log_text("error", err.text));
        (void)health_failed(&shared->health, HEALTH_BACKEND, &err, clock_now_ms());
    } else {
        loop(worker);
    }
    worker_set_working(worker, false);
    source_close(worker->source);
    backend_session_free(worker->session);
    batch_finish(&worker->batch);
    breaker_abandon(&shared->breaker, worker->number);
    suspect_abandon(&shared->suspect, worker->number);
    atomic_store(&worker->ended, true);
    wake_all(shared->wake);
    return NULL;
}

int worker_start(struct worker **out, struct shared *shared, int number, struct err *err)
{
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    const struct worker_options *options = &shared->options;
    worker->shared = shared;
    worker->number = number;
    text_init(&worker->resting, RESTING_MAX_BYTES);
    backoff_init(&worker->database_backoff, CONNECT_AT_MOST_EVERY_MS, options->reconnect_max_ms);
    backoff_init(&worker->backend_backoff, CONNECT_AT_MOST_EVERY_MS, options->reconnect_max_ms);
    backoff_init(&worker->retry_backoff, options->retry_min_ms, options->retry_max_ms);
    int fault = pthread_create(&worker->thread, NULL, run, worker);
    if (fault != 0) {
        text_finish(&worker->resting);
        free(worker);
        return err_set(err, ERR_INTERNAL, "cannot start a thread: %s", strerror(fault));
    }
    *out = worker;
    return 0;
}

bool worker_join(struct worker *worker, int64_t deadline_ms)
{
    if (!wake_await(worker->shared->wake, &worker->ended, deadline_ms)) {
        return false;
    }
    (void)pthread_join(worker->thread, NULL);
    text_finish(&worker->resting);
    free(worker);
    return true;
}
