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

void worker_end_turn(struct worker *worker)
{
    if (worker->asks_for_others) {
        channels_others_failed(worker->shared->channels, clock_now_ms());
        worker->asks_for_others = false;
    }
    if (worker->turn) {
        channels_end_turn(worker->shared->channels, worker->turn, clock_now_ms());
        worker->turn = 0;
    }
    if (worker->retries) {
        channels_end_retries(worker->shared->channels);
        worker->retries = false;
    }
}

void worker_let_go(struct worker *worker)
{
    worker_end_turn(worker);
    worker_set_working(worker, false);
    if (suspect_let_go(&worker->shared->suspect, worker->number)) {
        wake_all(worker->shared->wake);
    }
}

void worker_slow_down(struct worker *worker)
{
    worker->last_poll_ms = worker->poll_ms = worker->shared->options.poll_max_ms;
    worker->not_before_ms = clock_after(clock_now_ms(), worker->poll_ms);
}

/* The claim was planned a moment ago: since then, another worker may have learned what this one must not
 * send. */
static bool may_go(struct worker *worker, const struct row *row, int64_t now_ms)
{
    struct shared *shared = worker->shared;
    struct bytes channel = row_channel(row);
    bool suspect = row->entry == 0 && suspect_includes(&shared->suspect, row->message.seq);
    return !suspect && !channels_rests(shared->channels, channel, now_ms);
}

static bool is_open(const struct row *row)
{
    return !row->lent && row->verdict == OUTBOX_UNSETTLED;
}

/* Channels of the batch of which not all may be in flight; of those beyond MAX_LIMITS nothing is. */
enum { MAX_LIMITS = 64 };
struct limit {
    struct bytes name;
    size_t left;
    size_t skip;  /* so many that might go are passed over */
    bool returns; /* of rows of outbox.message: retries are few, and have waits of their own */
};
struct limits {
    struct limit list[MAX_LIMITS];
    size_t count;
    struct limit none;
};

/*
 * A channel whose destination could take nothing comes back with one message, and with twice as many as were
 * taken after each wave: where it is refused again, a fan-out has delivered few more copies and not a batch
 * of them. Not always with the first one: that one may be why.
 */
static struct limit limit_of_return(const struct batch *batch, struct suspect *suspect, struct bytes channel,
                                    unsigned holds)
{
    size_t taken = 0;
    size_t ready = 0;
    bool refused = false;
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
        if (row->entry == 0 && bytes_equal(row_channel(row), channel)) {
            bool took = row->verdict != OUTBOX_HOLD && row->verdict != OUTBOX_UNSETTLED;
            taken += row->lent && took;
            refused = refused || (row->lent && !took);
            ready += batch_is_next(batch, row) && !suspect_includes(suspect, row->message.seq);
        }
    }
    if (taken > 0 || refused) {
        return (struct limit){.name = channel, .left = refused ? 0 : 2 * taken, .returns = true};
    }
    return (struct limit){.name = channel, .left = 1, .skip = ready > 0 ? holds % ready : 0, .returns = true};
}

static struct limit *find_limit(struct limits *limits, struct worker *worker, struct bytes channel)
{
    struct channels *channels = worker->shared->channels;
    unsigned holds = 0;
    for (size_t at = 0; at < limits->count; at++) {
        if (bytes_equal(limits->list[at].name, channel)) {
            return &limits->list[at];
        }
    }
    size_t allowance = channels_allowance(channels, channel, &holds);
    if (allowance == SIZE_MAX && holds == 0) {
        return NULL;
    }
    if (limits->count == MAX_LIMITS) {
        limits->none = (struct limit){.name = channel, .returns = true};
        return &limits->none;
    }
    struct limit *limit = &limits->list[limits->count++];
    *limit = holds > 0 ? limit_of_return(&worker->batch, &worker->shared->suspect, channel, holds)
                       : (struct limit){.name = channel};
    limit->left = holds > 0 && limit->left < allowance ? limit->left : allowance;
    return limit;
}

/* False if as many of the row's channel as may be are lent already. */
static bool is_within(struct limits *limits, struct worker *worker, const struct row *row)
{
    struct limit *limit = find_limit(limits, worker, row_channel(row));
    if (!limit || (limit->returns && row->entry != 0)) {
        return true;
    }
    if (limit->left == 0 || !batch_is_next(&worker->batch, row)) {
        return false; /* what its key keeps back takes no other's place */
    }
    bool within = limit->skip == 0;
    limit->left -= within;
    limit->skip -= !within;
    return within;
}

/* Of channels that cost sessions one message goes at a time, when the others of the batch are through: then
 * nothing else is in flight, and it is known which one it was. */
static void withhold_isolated(struct worker *worker)
{
    struct batch *batch = &worker->batch;
    size_t first = batch->count;
    for (size_t at = batch->count; at-- > 0;) {
        struct row *row = &batch->rows[at];
        if (is_open(row) && !row->withheld &&
            channels_is_isolated(worker->shared->channels, row_channel(row))) {
            row->isolated = row->withheld = true;
            first = at;
        }
    }
    bool their_turn = first < batch->count && !batch_has_wave(batch);
    for (size_t at = first; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        row->withheld = row->withheld && !(row->isolated && their_turn && at == first);
        row->isolated = false;
    }
}

void worker_withhold(struct worker *worker)
{
    struct limits limits = {.count = 0};
    int64_t now_ms = clock_now_ms();
    size_t withheld = 0;
    if (worker->single || worker->probing) {
        return; /* a suspect is tried whatever rests, and a probe has to prove something */
    }
    for (size_t at = 0; at < worker->batch.count; at++) {
        struct row *row = &worker->batch.rows[at];
        if (is_open(row)) {
            row->withheld =
                row->postponed || !may_go(worker, row, now_ms) || !is_within(&limits, worker, row);
        }
        withheld += row->withheld;
    }
    if (withheld == worker->batch.count) {
        /* Nothing of it goes, and it must not be claimed again at full speed. */
        worker_slow_down(worker);
    }
    withhold_isolated(worker);
}
