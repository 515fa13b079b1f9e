/* worker_hold - what a worker has taken and others wait for: a share of the budget, a batch, the turn of
 * suspect mode. */
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
