/*
 * worker_state - what one worker has in hand, and the steps of its loop that live in files of their own. For
 * worker*.c only.
 *
 * Everything here runs in the worker's thread.
 */
#ifndef RELAY_WORKER_STATE_H
#define RELAY_WORKER_STATE_H

#include "base/clock.h"
#include "machine/worker.h"

/* FORFEIT_MS: from one refused channel to the next, each of which costs a session; the broker is well. */
enum { CONNECT_AT_MOST_EVERY_MS = 1000, CHECK_EVERY_MS = 500, FORFEIT_MS = 100 };

struct worker {
    struct shared *shared;
    pthread_t thread;
    _Atomic int64_t beat_ms; /* when it last made progress */
    struct source *source;
    struct session *session;
    struct batch batch;
    struct verdict verdict;
    struct text resting;
    struct text working;           /* names of channels that are to be claimed alone */
    struct source_request request; /* of the batch in hand */
    int64_t suspect_seq;
    int64_t unkeyed_at_ms; /* order by key: rows without a key are asked for again from then on */
    struct backoff database_backoff;
    struct backoff backend_backoff;
    struct backoff retry_backoff;
    int64_t database_not_before_ms;
    int64_t backend_not_before_ms;
    int64_t check_at_ms;
    int64_t poll_ms;      /* wait before the next look; 0 = claim at once */
    int64_t last_poll_ms; /* the wait before, since something was last claimed */
    int number;
    enum watch_cause cause; /* why the last call to the backend was interrupted */
    atomic_bool ended;      /* nothing is left to do but to join the thread */
    bool single;            /* the batch in hand is one row of suspect mode */
    bool probing;           /* this worker is the breaker's prober */
    bool probes_any;        /* no channel that worked lately has a row: any will do */
    bool retries_were_last; /* claimed: the messages' turn is next */
    bool paused;            /* our own session said BUSY: only it can say that the pause is over */
    bool holds_batch;
    unsigned turn;         /* its claim is the turn of channels whose rest is over; 0 = it is not */
    bool others;           /* its claim is for those that a crowd would keep waiting */
    bool asks_for_others;  /* ... and has not been answered */
    bool retries;          /* its claim is for retries, and it has told so */
    bool ordinary;         /* it took what came next, whosever it is */
    bool unkeyed_is_full;  /* rows without a key fill their claims: those with one have every other claim */
    int64_t planned_ms;    /* when it was planned */
    int64_t not_before_ms; /* rows stay that must not be claimed again at full speed, whosever turn comes */
};

static inline void worker_beat(struct worker *worker)
{
    atomic_store_explicit(&worker->beat_ms, clock_now_ms(), memory_order_relaxed);
}

/* worker_hold.c: what a worker has taken and others wait for. */

/* Takes up to `wanted` messages out of the budget that drain --max-messages sets. */
size_t worker_take_budget(struct shared *shared, size_t wanted);

/* Gives back what was taken of the budget and not used. */
void worker_return_budget(struct shared *shared, size_t unused);

/* Rows are, or may be, locked for this worker. */
void worker_set_working(struct worker *worker, bool working);

/* The batch of a turn, or of retries, is settled, or there is none; nor will a claim for the others be
 * answered any more. */
void worker_end_turn(struct worker *worker);

/* Rows stay that must not be claimed again at full speed. */
void worker_slow_down(struct worker *worker);

/* No batch in hand, and none to be claimed at once: who waits for that may go on. */
void worker_let_go(struct worker *worker);

/* Keeps back what must not be sent now: rows of a channel that rests meanwhile, rows that became suspects. */
void worker_withhold(struct worker *worker);

/* worker_report.c: what the batch's verdicts say of its channels is remembered and told. */
void worker_report(struct worker *worker);

/* Which of its channels took long: publishing began then, and is over. */
void worker_report_paces(struct worker *worker, int64_t began_ms);

/* Tells of the dead letters, once they are moved; where some are stuck, only how many were. */
void worker_report_burials(struct worker *worker, size_t stuck);

/* worker_session.c: the session to the broker. */

/* May this worker connect now, and go on to claim? The breaker answers; if not, it has waited a while. */
bool worker_may_connect(struct worker *worker);

/* Connects if there is no session; false after a failure or a wait. */
bool worker_have_session(struct worker *worker);

/* With a session: what may it claim? Suspect mode answers; if nothing, it has waited a while. */
bool worker_may_claim(struct worker *worker);

/* Disconnects, through no fault of the broker. */
void worker_drop_session(struct worker *worker);

void worker_lose_session(struct worker *worker, const struct err *why);

/* A refusal of a known message cost it: that is the matter of the message's channel, not of the broker. */
void worker_forfeit_session(struct worker *worker, const struct err *why);
void worker_pause_session(struct worker *worker, const struct err *why, int64_t retry_after_ms);
void worker_session_works(struct worker *worker, bool takes);

/* Waits without a transaction, until the time or a stop; heartbeats are serviced meanwhile. */
void worker_wait_until(struct worker *worker, int64_t until_ms);

/* worker_source.c: the connection to the database. */

bool worker_have_source(struct worker *worker);
void worker_source_works(struct worker *worker);

/* A COMMIT with rows is over, or there is nothing to commit. Where one had no answer, claims that work are no
 * sign of health for a while. */
void worker_commits(struct worker *worker, bool done, int64_t took_ms);

/* Closes it; the batch in hand is forgotten, the server rolls it back. */
void worker_lose_source(struct worker *worker, const struct err *why);

/* worker_claim.c: what to claim, and waiting when there is nothing. */

/* Fills worker->request; false when the budget is used up. */
bool worker_plan_claim(struct worker *worker);

/* Looks at what a claim brought. */
void worker_claimed(struct worker *worker);

/* True with a batch in hand. */
bool worker_claim(struct worker *worker);

/* Nothing to do: waits a little longer each time, and looks without locking anything. */
void worker_wait_for_messages(struct worker *worker);

#endif
