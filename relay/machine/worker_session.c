/* worker_session - connecting to the broker, losing it, and waiting with its heartbeats serviced. */
#include "base/clock.h"
#include "machine/worker_state.h"

void worker_drop_session(struct worker *worker)
{
    if (backend_is_connected(worker->session)) {
        metrics_add(&worker->shared->metrics.backend_losses, 1);
        backend_disconnect(worker->session);
    }
    worker->paused = false;
}

void worker_lose_session(struct worker *worker, const struct err *why)
{
    struct shared *shared = worker->shared;
    int64_t now_ms = clock_now_ms();
    worker_drop_session(worker);
    if (health_failed(&shared->health, HEALTH_BACKEND, why, now_ms)) {
        LOG(shared->log, LOG_WARNING, "no session to the broker", log_number("worker", worker->number),
            log_text("backend", backend_name(shared->backend)), log_text("error", why->text));
    }
    if (breaker_failed(&shared->breaker, why->text, now_ms)) {
        LOG(shared->log, LOG_WARNING, "breaker is open: nothing is claimed until the broker answers",
            log_text("reason", why->text));
    }
    worker->backend_not_before_ms += backoff_next_ms(&worker->backend_backoff);
}

void worker_forfeit_session(struct worker *worker, const struct err *why)
{
    worker_drop_session(worker);
    worker->backend_not_before_ms = clock_now_ms() + FORFEIT_MS;
    LOG(worker->shared->log, LOG_DEBUG, "a refused message cost the session; the broker answers",
        log_number("worker", worker->number), log_text("reason", why->text));
}

void worker_pause_session(struct worker *worker, const struct err *why, int64_t retry_after_ms)
{
    struct shared *shared = worker->shared;
    worker->paused = true;
    (void)health_failed(&shared->health, HEALTH_BACKEND, why, clock_now_ms());
    if (breaker_busy(&shared->breaker, why->text, retry_after_ms, clock_now_ms())) {
        LOG(shared->log, LOG_WARNING, "the broker asks for a pause: nothing is claimed until it is over",
            log_text("reason", why->text));
    }
}

void worker_session_works(struct worker *worker, bool takes)
{
    struct shared *shared = worker->shared;
    backoff_reset(&worker->backend_backoff);
    bool news = health_works(&shared->health, HEALTH_BACKEND);
    if (breaker_succeeded(&shared->breaker, clock_now_ms())) {
        wake_all(shared->wake);
        news = true;
    }
    if (news) {
        LOG(shared->log, LOG_INFO,
            takes ? "the broker takes messages again" : "the broker can be reached again",
            log_text("backend", backend_name(shared->backend)));
    }
}

/* Services heartbeats and alarms of an idle session. */
static void check_session(struct worker *worker)
{
    struct shared *shared = worker->shared;
    int64_t now_ms = clock_now_ms();
    if (!backend_is_connected(worker->session) || now_ms < worker->check_at_ms) {
        return;
    }
    struct err err = {0};
    int64_t retry_after_ms = 0;
    int64_t deadline_ms = now_ms + CHECK_EVERY_MS;
    watchdog_begin(&shared->watchdog, (size_t)worker->number, worker->session, deadline_ms, -1);
    enum outbox_session_state state = backend_check(worker->session, deadline_ms, &retry_after_ms, &err);
    if (watchdog_end(&shared->watchdog, (size_t)worker->number) != WATCH_NONE &&
        state != OUTBOX_SESSION_LOST) {
        state = OUTBOX_SESSION_LOST;
        (void)err_set(&err, ERR_CONNECTION, "checking the idle session took longer than its deadline");
    }
    worker->check_at_ms = clock_now_ms() + CHECK_EVERY_MS;
    if (state == OUTBOX_SESSION_LOST) {
        worker_lose_session(worker, &err);
    } else if (state == OUTBOX_SESSION_BUSY) {
        worker_pause_session(worker, &err, retry_after_ms);
    } else if (worker->paused && backend_has_check(shared->backend)) {
        worker->paused = false;
        if (!breaker_pause_over(&shared->breaker, clock_now_ms())) {
            return;
        }
        worker_session_works(worker, false);
        LOG_PLAIN(shared->log, LOG_INFO, "the broker's pause is over");
        wake_all(shared->wake);
    }
}

void worker_wait_until(struct worker *worker, int64_t until_ms)
{
    struct wake *wake = worker->shared->wake;
    do {
        worker_beat(worker);
        check_session(worker);
        int64_t slice_ms = clock_after(clock_now_ms(), CHECK_EVERY_MS);
        wake_sleep(wake, until_ms < slice_ms ? until_ms : slice_ms);
    } while (clock_now_ms() < until_ms && !wake_is_stopping(wake));
}

/* Waits for a change since `seen`, such as a breaker that closes; at most until the time, and as long as an
 * idle session may. */
static void await_change(struct worker *worker, uint64_t seen, int64_t until_ms)
{
    worker_beat(worker);
    check_session(worker);
    int64_t slice_ms = clock_now_ms() + CHECK_EVERY_MS;
    wake_wait(worker->shared->wake, seen, until_ms < slice_ms ? until_ms : slice_ms);
}

bool worker_may_connect(struct worker *worker)
{
    struct shared *shared = worker->shared;
    int64_t wait_until_ms = 0;
    uint64_t seen = wake_changes(shared->wake);
    enum breaker_answer answer =
        breaker_ask(&shared->breaker, worker->number, clock_now_ms(), &wait_until_ms);
    if (answer == BREAKER_WAIT) {
        await_change(worker, seen, wait_until_ms);
        return false;
    }
    if (answer == BREAKER_PROBE && !worker->probing) {
        LOG(shared->log, LOG_INFO, "breaker is half-open: one message tries the broker",
            log_number("worker", worker->number));
    }
    worker->probes_any = worker->probes_any && worker->probing;
    worker->probing = answer == BREAKER_PROBE;
    return true;
}

bool worker_may_claim(struct worker *worker)
{
    struct shared *shared = worker->shared;
    uint64_t seen = wake_changes(shared->wake);
    enum suspect_answer answer =
        suspect_ask(&shared->suspect, worker->number, worker->probing, &worker->suspect_seq);
    if (answer == SUSPECT_WAIT) {
        await_change(worker, seen, CLOCK_NEVER_MS);
        return false;
    }
    worker->single = answer == SUSPECT_SINGLE;
    if (worker->single || worker->probing) {
        worker->poll_ms = 0; /* the row is known, or any will do: a look would not tell more than the claim */
    }
    return true;
}

bool worker_have_session(struct worker *worker)
{
    struct shared *shared = worker->shared;
    if (backend_is_connected(worker->session)) {
        return true;
    }
    if (clock_now_ms() < worker->backend_not_before_ms) {
        worker_wait_until(worker, worker->backend_not_before_ms);
        return false;
    }
    struct err err = {0};
    int64_t deadline_ms = clock_now_ms() + shared->options.publish_timeout_ms;
    worker->backend_not_before_ms = clock_now_ms() + CONNECT_AT_MOST_EVERY_MS;
    metrics_add(&shared->metrics.backend_connects, 1);
    watchdog_begin(&shared->watchdog, (size_t)worker->number, worker->session, deadline_ms, -1);
    int result = backend_connect(worker->session, deadline_ms, &err);
    if (watchdog_end(&shared->watchdog, (size_t)worker->number) != WATCH_NONE && result == 0) {
        backend_disconnect(worker->session);
        result = err_set(&err, ERR_CONNECTION, "connecting took longer than publish_timeout");
    }
    if (result != 0) {
        worker_lose_session(worker, &err);
        return false;
    }
    worker->check_at_ms = clock_now_ms() + CHECK_EVERY_MS;
    if (!worker->probing && health_works(&shared->health, HEALTH_BACKEND)) {
        LOG(shared->log, LOG_INFO, "connected to the broker", log_number("worker", worker->number));
    }
    return true;
}
