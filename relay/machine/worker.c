/* A worker claims a batch of rows, asks the backend to publish it, settles each row by the verdict it got,
 * and commits. */
#define _GNU_SOURCE /* pthread_setname_np */
#include "machine/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "machine/worker_state.h"

/* As many names as channels.c remembers of those that rest, each of its characters escaped. */
enum { RESTING_MAX_BYTES = 32 << 20, WORKING_MAX_BYTES = 4 << 20 };

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

/* The session died with several rows in flight: one of them may be why. */
static void suspect_rows(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    int64_t *seqs = arena_alloc(&batch->arena, batch->count * sizeof *seqs);
    size_t count = 0;
    for (size_t at = 0; at < batch->count && seqs; at++) {
        const struct row *row = &batch->rows[at];
        if (row->verdict == OUTBOX_UNSETTLED && row->lent && !row->not_sent && row->entry == 0) {
            seqs[count++] = row->message.seq;
        }
    }
    if (count > 0 && batch->count > 1) {
        suspect_begin(&worker->shared->suspect, seqs, count);
    }
}

/* It died, and of a message of this wave the backend knows that it was refused: that one is why. */
static bool is_blamed(const struct batch *batch)
{
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
        if (row->in_last_wave && (row->verdict == OUTBOX_RETRY ||
                                  (row->verdict == OUTBOX_REJECTED && strcmp(row->burial, "expired") != 0))) {
            return true;
        }
    }
    return false;
}

/* All that was on the way is of one channel, which has cost sessions before. */
static bool is_isolated(const struct worker *worker)
{
    const struct row *first = NULL;
    for (size_t at = 0; at < worker->batch.count; at++) {
        const struct row *row = &worker->batch.rows[at];
        if (!row->in_last_wave) {
            continue;
        }
        first = first ? first : row;
        if (!bytes_equal(row_channel(row), row_channel(first))) {
            return false;
        }
    }
    return first && channels_is_isolated(worker->shared->channels, row_channel(first));
}

static void after_publish(struct worker *worker, enum outbox_session_state state, int64_t retry_after_ms,
                          const struct err *err)
{
    const struct tally *tally = &worker->verdict.tally;
    if (tally->confirmed > 0 || (state == OUTBOX_SESSION_OK && worker->probing)) {
        worker_session_works(worker, tally->confirmed > 0);
    }
    if (state == OUTBOX_SESSION_OK) {
        return;
    }
    count_possible_duplicates(worker, tally->unsettled, err->text);
    if (state == OUTBOX_SESSION_BUSY) {
        worker_pause_session(worker, err, retry_after_ms);
        return;
    }
    if (worker->cause == WATCH_DATABASE || worker->cause == WATCH_STOP) {
        worker_drop_session(worker);
        return;
    }
    bool blamed = is_blamed(&worker->batch);
    if (worker->cause == WATCH_NONE && (blamed || is_isolated(worker))) {
        worker_forfeit_session(worker, err);
        if (!blamed) {
            suspect_rows(worker); /* which of them it is */
        }
        if (worker->probing) {
            worker_session_works(worker,
                                 false); /* the broker looks at messages: what it refuses rests by itself */
        }
        return;
    }
    worker_lose_session(worker, err);
    suspect_rows(worker);
}

/* A text that lives as long as the batch: the rows' errors point to it until they are settled. */
static const char *keep_text(struct batch *batch, const char *text)
{
    const char *copy = arena_copy(&batch->arena, bytes_of(text));
    return copy ? copy : "the session was lost";
}

static const char *const causes[] = {
    [WATCH_DEADLINE] = "the call was interrupted after its deadline",
    [WATCH_DATABASE] = "the call was interrupted: the database connection died, and the batch with it",
    [WATCH_STOP] = "the call was interrupted by a stop",
};

/* Sends one wave: all that may be in flight at once. */
static enum outbox_session_state publish_wave(struct worker *worker, int64_t deadline_ms,
                                              int64_t *retry_after_ms, struct err *err)
{
    struct watchdog *watchdog = &worker->shared->watchdog;
    worker_beat(worker);
    watchdog_begin(watchdog, (size_t)worker->number, worker->session, deadline_ms,
                   source_socket(worker->source));
    enum outbox_session_state state =
        backend_publish(worker->session, &worker->batch, deadline_ms, retry_after_ms, err);
    worker->cause = watchdog_end(watchdog, (size_t)worker->number);
    if (worker->cause != WATCH_NONE && state != OUTBOX_SESSION_LOST) {
        err_clear(err);
        (void)err_set(err, ERR_CONNECTION, "%s", causes[worker->cause]);
        state = OUTBOX_SESSION_LOST;
    }
    return state;
}

/* One deadline covers the batch. A wave that could not be over by then is not begun: its rows are not sent.
 */
static enum outbox_session_state publish_waves(struct worker *worker, int64_t began_ms,
                                               int64_t *retry_after_ms, struct err *err)
{
    int64_t timeout_ms = worker->shared->options.publish_timeout_ms;
    enum outbox_session_state state = OUTBOX_SESSION_OK;
    bool more = true;
    worker_withhold(worker);
    while (more) {
        state = publish_wave(worker, began_ms + timeout_ms, retry_after_ms, err);
        worker_withhold(worker); /* of what is left, something may go now, and something must not any more */
        more = state == OUTBOX_SESSION_OK && batch_has_wave(&worker->batch) &&
               clock_now_ms() < began_ms + timeout_ms / 2 && !wake_is_stopping(worker->shared->wake);
    }
    return state;
}

static enum outbox_session_state publish(struct worker *worker)
{
    struct shared *shared = worker->shared;
    struct err err = {0};
    int64_t retry_after_ms = 0;
    int64_t began_ms = clock_now_ms();
    enum outbox_session_state state = publish_waves(worker, began_ms, &retry_after_ms, &err);
    bool lost_by_broker =
        state == OUTBOX_SESSION_LOST && worker->cause != WATCH_DATABASE && worker->cause != WATCH_STOP;
    worker->check_at_ms = clock_now_ms() + CHECK_EVERY_MS;
    const struct verdict_context context = {
        .rules = &shared->options.rules,
        .backoff = &worker->retry_backoff,
        .began_ms = began_ms,
        .loss = lost_by_broker ? keep_text(&worker->batch, err.text) : NULL,
        .single = worker->single,
    };
    channels_recall(shared->channels, &worker->batch, began_ms);
    verdict_decide(&worker->verdict, &worker->batch, &context);
    worker_report(worker);
    worker_report_paces(worker, began_ms);
    after_publish(worker, state, retry_after_ms, &err);
    return state;
}

static void committed(struct worker *worker)
{
    struct shared *shared = worker->shared;
    const struct tally *tally = &worker->verdict.tally;
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
    struct shared *shared = worker->shared;
    if (state != OUTBOX_SESSION_OK || wake_is_stopping(shared->wake) || worker->poll_ms > 0 ||
        breaker_ask(&shared->breaker, worker->number, clock_now_ms(), &unused_ms) != BREAKER_PASS ||
        suspect_ask(&shared->suspect, worker->number, false, &worker->suspect_seq) != SUSPECT_NONE) {
        return false;
    }
    worker->single = false;
    worker->probing = false;
    return true;
}

/* The commit is over, one way or the other. */
static void after_commit(struct worker *worker, bool done, const struct err *err)
{
    struct shared *shared = worker->shared;
    if (done) {
        committed(worker);
    } else {
        count_possible_duplicates(worker, worker->verdict.tally.confirmed, err->text);
    }
    bool died = !done || !backend_is_connected(worker->session);
    if (worker->single) {
        bool over = suspect_tried(&shared->suspect, worker->number, worker->suspect_seq, died);
        if (over || died) {
            wake_all(shared->wake); /* all may go on, or another may */
        }
    }
}

/* Rows that stay must not be claimed again at full speed. */
static void slow_down_if_rows_stay(struct worker *worker, const struct settled *settled)
{
    struct shared *shared = worker->shared;
    if (settled->committed && settled->kept > 0) {
        LOG(shared->log, LOG_WARNING,
            "confirmed rows are still in the outbox and will be sent again: "
            "does a trigger, a rule or a policy keep them from being deleted?",
            log_number("worker", worker->number), log_number("rows", (int64_t)settled->kept));
    }
    if (settled->committed && settled->refused && settled->lasts) {
        metrics_add(&shared->metrics.stuck, settled->stuck_waits + settled->stuck_deaths);
    }
    if (settled->refused || settled->kept > 0) {
        atomic_store(&shared->rows_stayed_ms, clock_now_ms());
        worker_slow_down(worker);
    }
}

/* What the COMMIT left there has not gone. */
static size_t take_kept(struct worker *worker, const struct settled *settled)
{
    size_t kept = settled->committed ? settled->kept + settled->stuck_confirmed : 0;
    worker->verdict.tally.confirmed -= kept;
    return kept;
}

/* After what has gone: a drain looks at both. Trouble that passes, a lock say, keeps nothing. */
static void count_kept(struct worker *worker, const struct settled *settled, size_t kept, size_t claimed)
{
    struct metrics *metrics = &worker->shared->metrics;
    bool lasts = settled->lasts || settled->stuck_confirmed == 0;
    if (!lasts) {
        count_possible_duplicates(worker, kept, "confirmed rows could not be deleted");
        return;
    }
    metrics_add(&metrics->kept, kept);
    metrics_add(&metrics->kept_whole, kept > 1 && kept == claimed);
}

static void settle_and_commit(struct worker *worker, enum outbox_session_state state)
{
    struct shared *shared = worker->shared;
    struct tally *tally = &worker->verdict.tally;
    struct err err = {0};
    struct settled settled = {0};
    size_t claimed = worker->batch.count;
    size_t crowded = worker->ordinary ? claimed : 0;
    int64_t planned_ms = worker->planned_ms;
    int64_t began_ms = clock_now_ms();
    bool next = false;
    int result = failpoint("after_confirm") ? err_set(&err, ERR_CONNECTION, "failpoint after_confirm")
                                            : source_settle(worker->source, &worker->batch, &settled, &err);
    if (result == 0) {
        worker_report_burials(worker, settled.stuck_deaths);
        batch_drop_payloads(&worker->batch);
        tally->buried -= settled.stuck_deaths; /* they are still there: they must not be counted */
        tally->retried -= settled.stuck_waits;
        next = !settled.refused && settled.kept == 0 && !worker->single && may_claim_at_once(worker, state) &&
               worker_plan_claim(worker);
        result =
            source_commit(worker->source, next ? &worker->request : NULL, &worker->batch, &settled, &err);
    }
    bool committed = settled.committed;
    worker_commits(worker, committed, clock_now_ms() - began_ms);
    if (committed && crowded > 0) {
        int64_t now_ms = clock_now_ms();
        channels_took(shared->channels, crowded, shared->options.batch_messages, now_ms - planned_ms, now_ms);
    }
    size_t kept = take_kept(worker, &settled);
    worker_return_budget(shared, committed ? claimed - tally->confirmed - tally->buried : claimed);
    after_commit(worker, committed, &err);
    count_kept(worker, &settled, kept, claimed);
    slow_down_if_rows_stay(worker, &settled);
    if (result != 0) {
        worker_return_budget(shared, next ? worker->request.max_messages : 0);
        worker_lose_source(worker, &err);
    } else if (next) {
        worker_claimed(worker);
    }
    if (worker->batch.count == 0) {
        worker_let_go(worker);
    }
}

/* ---- the loop ---- */

static void loop(struct worker *worker)
{
    while (!wake_is_stopping(worker->shared->wake)) {
        worker_beat(worker);
        if (worker->batch.count == 0) {
            if (!worker_may_connect(worker) || !worker_have_session(worker) || !worker_have_source(worker) ||
                !worker_may_claim(worker)) {
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
        settle_and_commit(worker, publish(worker));
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
        batch_init(&worker->batch, shared->options.batch_messages, &err) != 0 ||
        verdict_init(&worker->verdict, shared->options.batch_messages, &err) != 0) {
        LOG(shared->log, LOG_ERROR, "worker cannot start", log_text("error", err.text));
        (void)health_failed(&shared->health, HEALTH_BACKEND, &err, clock_now_ms());
    } else {
        loop(worker);
    }
    worker_set_working(worker, false);
    source_close(worker->source);
    backend_session_free(worker->session);
    batch_finish(&worker->batch);
    verdict_finish(&worker->verdict);
    breaker_abandon(&shared->breaker, worker->number);
    (void)suspect_abandon(&shared->suspect, worker->number);
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
    worker_beat(worker);
    text_init(&worker->resting, RESTING_MAX_BYTES);
    text_init(&worker->working, WORKING_MAX_BYTES);
    text_add(&worker->resting, "{}");
    text_add(&worker->working, "{}");
    if (worker->resting.overflow || worker->working.overflow) {
        text_finish(&worker->resting);
        text_finish(&worker->working);
        free(worker);
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    backoff_init(&worker->database_backoff, CONNECT_AT_MOST_EVERY_MS, options->reconnect_max_ms);
    backoff_init(&worker->backend_backoff, CONNECT_AT_MOST_EVERY_MS, options->reconnect_max_ms);
    backoff_init(&worker->retry_backoff, options->retry_min_ms, options->retry_max_ms);
    int fault = pthread_create(&worker->thread, NULL, run, worker);
    if (fault != 0) {
        text_finish(&worker->resting);
        text_finish(&worker->working);
        free(worker);
        return err_set(err, ERR_INTERNAL, "cannot start a thread: %s", strerror(fault));
    }
    *out = worker;
    return 0;
}

int64_t worker_silent_ms(const struct worker *worker, int64_t now_ms)
{
    bool ended = atomic_load(&worker->ended);
    return ended ? 0 : now_ms - atomic_load_explicit(&worker->beat_ms, memory_order_relaxed);
}

bool worker_join(struct worker *worker, int64_t deadline_ms)
{
    if (!wake_await(worker->shared->wake, &worker->ended, deadline_ms)) {
        return false;
    }
    (void)pthread_join(worker->thread, NULL);
    text_finish(&worker->resting);
    text_finish(&worker->working);
    free(worker);
    return true;
}
