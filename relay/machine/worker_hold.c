/* worker_hold - what a worker has taken and others wait for: a share of the budget, a batch, the turn of
 * suspect mode; and what it keeps back of its batch for the sake of what others know. */
#include "machine/worker_state.h"

size_t worker_take_budget(struct shared *shared, size_t wanted)
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

void worker_let_go(struct worker *worker)
{
    worker_set_working(worker, false);
    if (suspect_let_go(&worker->shared->suspect, worker->number)) {
        wake_all(worker->shared->wake);
    }
}

/* The claim was planned a moment ago: since then, another worker may have learned what this one must not
 * send. */
static bool may_go(struct worker *worker, const struct row *row, int64_t now_ms)
{
    struct shared *shared = worker->shared;
    struct bytes channel = {row->message.channel.ptr, row->message.channel.len};
    bool suspect = row->entry == 0 && suspect_includes(&shared->suspect, row->message.seq);
    return !suspect && !channels_rests(shared->channels, channel, now_ms);
}

void worker_withhold(struct worker *worker)
{
    int64_t now_ms = clock_now_ms();
    size_t withheld = 0;
    if (worker->single || worker->probing) {
        return; /* a suspect is tried whatever rests, and a probe has to prove something */
    }
    for (size_t at = 0; at < worker->batch.count; at++) {
        struct row *row = &worker->batch.rows[at];
        row->withheld = !row->lent && row->verdict == OUTBOX_UNSETTLED && !may_go(worker, row, now_ms);
        withheld += row->withheld;
    }
    if (withheld == worker->batch.count) {
        /* Nothing of it goes, and it must not be claimed again at full speed. */
        worker->last_poll_ms = worker->poll_ms = worker->shared->options.poll_max_ms;
    }
}
