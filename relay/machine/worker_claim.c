/* worker_claim - what to claim and when; waiting while there is nothing. */
#include "base/clock.h"
#include "base/failpoint.h"
#include "machine/worker_state.h"

/* How long rows without a key may wait unasked for while rows with one keep coming. */
enum { UNKEYED_AGAIN_MS = 100, RETRIES_AGAIN_MS = 50 };

static bool scheduled_is_due(struct shared *shared)
{
    int64_t now_ms = clock_now_ms();
    int64_t due_ms = atomic_load(&shared->next_scheduled_ms);
    return now_ms >= due_ms &&
           atomic_compare_exchange_strong(&shared->next_scheduled_ms, &due_ms, now_ms + 1000);
}

/* Where too many workers are busy with retries that take long, they stay due. */
static bool begin_retries(struct worker *worker)
{
    struct shared *shared = worker->shared;
    worker->retries = channels_begin_retries(shared->channels, clock_now_ms());
    if (!worker->retries) {
        atomic_store(&shared->next_scheduled_ms, clock_after(clock_now_ms(), RETRIES_AGAIN_MS));
    }
    return worker->retries;
}

/* Retries are never claimed twice in a row; with order by key, rows without a key take turns with the others.
 */
static enum claim_kind next_kind(struct worker *worker)
{
    bool ordered = worker->shared->options.source.ordered;
    if (worker->single) {
        return CLAIM_SUSPECT;
    }
    if (!worker->retries_were_last && scheduled_is_due(worker->shared) && begin_retries(worker)) {
        worker->retries_were_last = true;
        return CLAIM_SCHEDULED;
    }
    if (ordered && worker->request.kind != CLAIM_MESSAGES && clock_now_ms() >= worker->unkeyed_at_ms) {
        return CLAIM_MESSAGES;
    }
    worker->retries_were_last = false; /* the bulk of the messages has its turn now */
    return ordered ? CLAIM_KEYED : CLAIM_MESSAGES;
}

/* A probe is to prove that the broker works: best with a channel that did lately. And where so many rest that
 * not all of them are known, only those are claimed that are known to work. */
static const char *only_working(struct worker *worker)
{
    struct shared *shared = worker->shared;
    int64_t now_ms = clock_now_ms();
    bool group = channels_group_rests(shared->channels, now_ms);
    if (worker->single || (!group && (!worker->probing || worker->probes_any))) {
        return NULL;
    }
    channels_working(shared->channels, now_ms, &worker->working);
    return group || worker->working.len > 2 ? text_get(&worker->working) : NULL;
}

static enum channels_rows rows_of(const struct source_request *request)
{
    return request->kind == CLAIM_SCHEDULED ? ROWS_RETRIES
           : request->kind == CLAIM_KEYED   ? ROWS_KEYED
                                            : ROWS_UNKEYED;
}

/* Whose are these retries: of those that a crowd would keep waiting, or of whoever comes next? */
static void take_retries(struct worker *worker, int64_t now_ms)
{
    struct channels *channels = worker->shared->channels;
    worker->others = channels_take_others(channels, ROWS_RETRIES, now_ms, &worker->resting, &worker->working);
    worker->asks_for_others = worker->others;
    if (!worker->others) {
        channels_without_retries(channels, now_ms, &worker->resting);
    }
}

/* Whose is this claim: of channels whose rest is over, of those that a crowd would keep waiting, or of
 * whoever comes next? */
static void take_turn(struct worker *worker, int64_t now_ms)
{
    struct source_request *request = &worker->request;
    struct channels *channels = worker->shared->channels;
    worker->turn = channels_take_turn(channels, now_ms, &worker->resting, &worker->working);
    worker->others = !worker->turn && channels_take_others(channels, rows_of(request), now_ms,
                                                           &worker->resting, &worker->working);
    worker->asks_for_others = worker->others;
    request->place = worker->turn ? MARK_NOWHERE : worker->others ? MARK_OTHERS : MARK_ORDINARY;
    if (!worker->turn && !worker->others) {
        (void)channels_on_hold(channels, now_ms, &worker->resting);
    } else if (worker->working.len > 2) {
        request->only = text_get(&worker->working);
    }
}

/* The channels that are not claimed now. A suspect is tried whatever rests; what is asked for by its name
 * does not rest; and a probe may need whatever there is. */
static const char *left_out(struct worker *worker)
{
    const struct source_request *request = &worker->request;
    if (worker->single || request->only) {
        return "{}";
    }
    if (worker->probing) {
        (void)channels_resting(worker->shared->channels, clock_now_ms(), &worker->resting);
    } else if (request->kind == CLAIM_SCHEDULED) {
        take_retries(worker, clock_now_ms());
    } else {
        take_turn(worker, clock_now_ms());
    }
    return text_get(&worker->resting);
}

/* An ordinary claim leaves some of its rows to a later one, while others keep coming. */
static void take_share(struct worker *worker)
{
    struct source_request *request = &worker->request;
    worker->ordinary = !worker->others && !worker->turn && !request->only && !worker->single &&
                       !worker->probing && request->kind != CLAIM_SCHEDULED;
    size_t share = worker->ordinary
                       ? channels_share(worker->shared->channels, request->max_messages, clock_now_ms())
                       : request->max_messages;
    worker_return_budget(worker->shared, request->max_messages - share);
    request->max_messages = share;
}

bool worker_plan_claim(struct worker *worker)
{
    struct shared *shared = worker->shared;
    bool one = worker->single || worker->probing;
    worker_end_turn(worker);
    worker->others = worker->ordinary = false;
    worker->planned_ms = clock_now_ms();
    worker->request = (struct source_request){
        .kind = next_kind(worker),
        .max_messages = worker_take_budget(shared, one ? 1 : shared->options.batch_messages),
        .only = only_working(worker),
        .suspect_seq = worker->suspect_seq,
    };
    if (worker->request.max_messages > 0) {
        worker->request.resting = left_out(worker);
        worker->request.of_few =
            worker->others || (worker->request.kind == CLAIM_KEYED && worker->unkeyed_is_full);
        take_share(worker);
    }
    return worker->request.max_messages > 0;
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

static void claimed_something(struct worker *worker)
{
    struct shared *shared = worker->shared;
    worker_set_working(worker, true);
    atomic_store(&shared->last_claim_ms, clock_now_ms());
    worker->probes_any = false;
    worker->last_poll_ms = 0;
    if (worker->request.kind == CLAIM_SCHEDULED) {
        atomic_store(&shared->next_scheduled_ms, clock_now_ms());
    } else if (worker->request.kind == CLAIM_MESSAGES) {
        worker->unkeyed_at_ms = 0;
    }
}

/* True if that was all there is to ask for. */
static bool claimed_nothing(struct worker *worker)
{
    struct shared *shared = worker->shared;
    enum claim_kind kind = worker->request.kind;
    bool of_some = worker->others || (worker->turn && worker->request.only);
    worker_let_go(worker);
    if (kind == CLAIM_SUSPECT &&
        suspect_tried(&shared->suspect, worker->number, worker->suspect_seq, false)) {
        wake_all(shared->wake);
    }
    if (kind == CLAIM_MESSAGES && shared->options.source.ordered && !of_some) {
        worker->unkeyed_at_ms = clock_after(clock_now_ms(), UNKEYED_AGAIN_MS);
    }
    if (kind == CLAIM_SCHEDULED && (of_some || source_promoted(worker->source) > 0)) {
        atomic_store(&shared->next_scheduled_ms, 0); /* there may be more of it, or of those that crowd */
    }
    if (kind == CLAIM_SCHEDULED || kind == CLAIM_SUSPECT ||
        (kind == CLAIM_MESSAGES && shared->options.source.ordered)) {
        return false; /* outbox.message was not asked yet, or only for some of its rows */
    }
    if (of_some || (kind == CLAIM_KEYED && worker->unkeyed_at_ms == 0)) {
        return false; /* nor is that all: rows without a key kept coming when they were last asked for */
    }
    bool asked_for_few = worker->request.only && worker->probing && !worker->probes_any;
    worker->probes_any = worker->probes_any || asked_for_few;
    return !asked_for_few;
}

/* Of a claim that took what came next, whosever it is. */
static void see_crowds(struct worker *worker)
{
    struct channels *channels = worker->shared->channels;
    int64_t now_ms = clock_now_ms();
    enum channels_rows rows = rows_of(&worker->request);
    bool whosever = worker->ordinary || (rows == ROWS_RETRIES && !worker->probing && !worker->request.only);
    if (channels_postpone_newcomers(channels, &worker->batch, now_ms) && worker->ordinary) {
        channels_see_newcomers(channels, rows, now_ms);
    }
    if (worker->asks_for_others) {
        worker->asks_for_others = false;
        channels_others_claimed(channels, worker->batch.count, now_ms);
    }
    if (worker->ordinary && worker->request.kind == CLAIM_MESSAGES) {
        worker->unkeyed_is_full = source_was_cut(worker->source);
    }
    if ((whosever || worker->others) && source_was_cut(worker->source)) {
        channels_see_full(channels, &worker->batch, rows, worker->others, now_ms);
    }
}

void worker_claimed(struct worker *worker)
{
    struct shared *shared = worker->shared;
    size_t got = worker->batch.count;
    worker_return_budget(shared, worker->request.max_messages - got);
    worker_source_works(worker);
    if (worker->turn) {
        bool in_order = shared->options.source.ordered;
        channels_turn_claimed(shared->channels, worker->turn, &worker->batch,
                              source_was_cut(worker->source) ? TURN_CUT
                              : in_order                     ? TURN_PART
                                                             : TURN_WHOLE);
    }
    see_crowds(worker);
    if (got > 0) {
        claimed_something(worker);
    } else if (claimed_nothing(worker)) {
        atomic_fetch_add(&shared->empty_claims, 1);
        if (worker->probing) {
            worker_session_works(worker, false); /* it connects, and there is nothing to prove more with */
        }
        wait_longer(worker);
    }
}

bool worker_claim(struct worker *worker)
{
    struct err err = {0};
    if (!worker_plan_claim(worker)) {
        worker_let_go(worker);
        worker_wait_until(worker, clock_now_ms() + worker->shared->options.poll_max_ms);
        return false;
    }
    worker_set_working(worker, true); /* rows may be locked from now on, however long the answer takes */
    (void)failpoint("before_claim");
    if (source_claim(worker->source, &worker->request, &worker->batch, &err) != 0) {
        worker_return_budget(worker->shared, worker->request.max_messages);
        worker_lose_source(worker, &err);
        worker->probes_any = worker->probes_any || worker->request.only; /* it may be the question's fault */
        return false;
    }
    worker_claimed(worker);
    return worker->batch.count > 0;
}

/* When a channel on hold may be tried; the list is that of the look. */
static int64_t turn_comes_ms(struct worker *worker)
{
    struct channels *channels = worker->shared->channels;
    int64_t now_ms = clock_now_ms();
    int64_t try_ms = channels_group_rests(channels, now_ms)
                         ? channels_resting(channels, now_ms, &worker->resting)
                         : channels_on_hold(channels, now_ms, &worker->resting);
    return try_ms > worker->not_before_ms ? try_ms : worker->not_before_ms;
}

void worker_wait_for_messages(struct worker *worker)
{
    struct shared *shared = worker->shared;
    worker_let_go(worker);
    while (worker->poll_ms > 0 && !wake_is_stopping(shared->wake)) {
        int64_t try_ms = turn_comes_ms(worker);
        int64_t until_ms = clock_now_ms() + worker->poll_ms;
        worker_wait_until(worker, try_ms < until_ms ? try_ms : until_ms);
        if (wake_is_stopping(shared->wake) || !backend_is_connected(worker->session)) {
            return;
        }
        struct err err = {0};
        struct source_look look = {0};
        if (turn_comes_ms(worker) <= clock_now_ms()) {
            worker->poll_ms = 0; /* somebody's turn has come */
            return;
        }
        const struct source_request request = {.resting = text_get(&worker->resting)};
        if (source_look(worker->source, &request, &look, &err) != 0) {
            worker_lose_source(worker, &err);
            return;
        }
        if (!look.waiting) {
            worker_commits(worker, true, 0);
        }
        worker_source_works(worker);
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
