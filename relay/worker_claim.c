/* worker_claim - what to claim and when; waiting while there is nothing. */
#include "clock.h"
#include "worker_state.h"

/* Takes up to `wanted` messages out of the budget that drain --max-messages sets. */
static size_t take_budget(struct shared *shared, size_t wanted)
{
    int64_t left = atomic_load(&shared->budget);
    int64_t taken = 0;
    do {
        taken = left < (int64_t)wanted ? left : (int64_t)wanted;
    } while (taken > 0 && !atomic_compare_exchange_weak(&shared->budget, &left, left - taken));
    return taken > 0 ? (size_t)taken : 0;
}

void worker_return_budget(struct shared *shared, size_t unused)
{
    atomic_fetch_add(&shared->budget, (int64_t)unused);
}

static bool scheduled_is_due(struct shared *shared)
{
    int64_t now_ms = clock_now_ms();
    int64_t due_ms = atomic_load(&shared->next_scheduled_ms);
    return now_ms >= due_ms &&
           atomic_compare_exchange_strong(&shared->next_scheduled_ms, &due_ms, now_ms + 1000);
}

bool worker_plan_claim(struct worker *worker)
{
    struct shared *shared = worker->shared;
    bool one = worker->single || worker->probing;
    (void)channels_resting(shared->channels, clock_now_ms(), &worker->resting);
    worker->request = (struct source_request){
        .max_messages = take_budget(shared, one ? 1 : shared->options.batch_messages),
        .resting = text_get(&worker->resting),
        .after_seq = worker->single ? worker->after_seq : 0,
        .scheduled = !worker->single && !worker->request.scheduled &&
                     scheduled_is_due(shared), /* never twice in a row */
    };
    return worker->request.max_messages > 0;
}

void worker_set_working(struct worker *worker, bool working)
{
    if (working != worker->holds_batch) {
        worker->holds_batch = working;
        if (working) {
            atomic_fetch_add(&worker->shared->working, 1);
        } else {
            atomic_fetch_sub(&worker->shared->working, 1);
            wake_all(worker->shared->wake); /* a drain may be over */
        }
    }
}

/* Rows that only others can claim must not make this worker spin: the wait grows until a claim brings
 * something. */
static void wait_longer(struct worker *worker)
{
    const struct worker_options *options = &worker->shared->options;
    int64_t doubled_ms = worker->last_poll_ms * 2;
    worker->poll_ms = doubled_ms < options->poll_min_ms ? options->poll_min_ms : doubled_ms;
    worker->poll_ms = worker->poll_ms < options->poll_max_ms ? worker->poll_ms : options->poll_max_ms;
    worker->last_poll_ms = worker->poll_ms;
}

void worker_claimed(struct worker *worker)
{
    struct shared *shared = worker->shared;
    size_t got = worker->batch.count;
    worker_return_budget(shared, worker->request.max_messages - got);
    worker_source_works(worker);
    if (got > 0) {
        worker_set_working(worker, true);
        atomic_store(&shared->last_claim_ms, clock_now_ms());
        worker->last_poll_ms = 0;
        if (worker->request.scheduled) {
            atomic_store(&shared->next_scheduled_ms, clock_now_ms());
        }
        return;
    }
    if (worker->request.scheduled) {
        worker_set_working(worker, false);
        return; /* outbox.message was not asked yet */
    }
    atomic_fetch_add(&shared->empty_claims, 1);
    worker_set_working(worker, false);
    if (worker->single && suspect_tried(&shared->suspect, worker->number, 0)) {
        wake_all(shared->wake);
    }
    if (worker->probing) {
        worker_session_works(worker); /* it connects, and there is nothing to prove more with */
    }
    wait_longer(worker);
}

bool worker_claim(struct worker *worker)
{
    struct err err = {0};
    if (!worker_plan_claim(worker)) {
        worker_wait_until(worker, clock_now_ms() + worker->shared->options.poll_max_ms);
        return false;
    }
    if (source_claim(worker->source, &worker->request, &worker->batch, &err) != 0) {
        worker_return_budget(worker->shared, worker->request.max_messages);
        worker_lose_source(worker, &err);
        return false;
    }
    worker_claimed(worker);
    return worker->batch.count > 0;
}

void worker_wait_for_messages(struct worker *worker)
{
    struct shared *shared = worker->shared;
    while (worker->poll_ms > 0 && !wake_is_stopping(shared->wake)) {
        int64_t rest_ends_ms = channels_resting(shared->channels, clock_now_ms(), &worker->resting);
        int64_t until_ms = clock_now_ms() + worker->poll_ms;
        worker_wait_until(worker, rest_ends_ms < until_ms ? rest_ends_ms : until_ms);
        if (wake_is_stopping(shared->wake) || !backend_is_connected(worker->session)) {
            return;
        }
        struct err err = {0};
        struct source_look look = {0};
        (void)channels_resting(shared->channels, clock_now_ms(), &worker->resting);
        const struct source_request request = {.resting = text_get(&worker->resting)};
        if (source_look(worker->source, &request, &look, &err) != 0) {
            worker_lose_source(worker, &err);
            return;
        }
        if (look.scheduled) {
            atomic_store(&shared->next_scheduled_ms, 0);
        }
        if (look.waiting || look.scheduled) {
            worker->poll_ms = 0;
            return;
        }
        atomic_fetch_add(&shared->empty_claims, 1);
        wait_longer(worker);
    }
}
