/* drain - one run of `drain`: what it aims at, what is left of that, and how it ends. */
#ifndef RELAY_DRAIN_H
#define RELAY_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "service/program.h"
#include "store/inspect.h"

enum { DRAIN_TICK_MS = 1000, DRAIN_RESTING_MAX_BYTES = 32 << 20 };

extern const char DRAIN_ON_HOLD[];

struct drain {
    struct program *program;
    struct pg *pg;
    struct inspect_target target;
    struct inspect_left left;
    struct text resting;
    int64_t began_ms;
    int64_t until_ms; /* --max-time */
    int64_t unavailable_after_ms;
    int64_t patience_ms;
    int64_t max_messages;
    int64_t progress_at_ms;
    int64_t looked_ms;    /* when `left` was read */
    int64_t rest_ends_ms; /* the first rest of a channel, as of then */
    int64_t progress_ms;  /* when less was left than before, or the workers began */
    int64_t owed;         /* rows at the last look, whatever they wait for */
    int64_t look_again_ms;
    int64_t blind_since_ms; /* looks have failed since then; 0 = the last one did not */
    unsigned looked_after;  /* empty claims at the last look */
    int64_t total;
    int64_t unclaimable_since_ms; /* rows are left, and nobody here can claim them; 0 = no */
    int64_t unclaimable;
    unsigned unclaimable_after; /* empty claims when that began: somebody must have tried since */
    bool looked;                /* the figures of what is left are known */
    bool show_progress;
    bool over;
    bool reached_limit;     /* --max-messages */
    bool forced;            /* a thread had to be let go of: nothing can be freed */
    int64_t settled;        /* rows, when there were last more than before */
    int64_t settled_ms;     /* and when that was */
    uint64_t settled_stuck; /* metrics.stuck and kept by then */
    uint64_t settled_whole; /* and metrics.kept_whole */
    struct err promote_err; /* why delayed messages cannot enter outbox.message */
    int code;
    char result[700];
};

/* ---- drain_look.c: what is left ---- */

/* What is left; cancel_fd ends the wait for it. */
int drain_look(struct drain *drain, int cancel_fd, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* When a question to the database has to be answered. */
int64_t drain_answer_by(const struct drain *drain);

/* Is this a fault that may be over at the next attempt? */
bool drain_may_pass(const struct err *err);

/* Moves what is due, and aims; again and again while the database is merely away or busy. */
int drain_prepare(struct drain *drain, struct err *err) MUST_CHECK;

/* What a worker of ours could have. */
int64_t drain_claimable(const struct drain *drain);

/* Does a rest, a pause or a retry end within drain.patience of the last progress? */
bool drain_is_patient(const struct drain *drain);

/* ---- drain_end.c: when it is over, and how ---- */

void drain_end(struct drain *drain, int code, const char *result);

/* By a signal, or because its time is over. */
bool drain_ends_by_request(struct drain *drain);

/* Looks at everything that may end it. */
void drain_judge(struct drain *drain);

/* When it has ended: what happened in this run may make a good end a 1. */
void drain_judge_outcome(struct drain *drain);

/* ---- drain_tell.c: progress and summary ---- */

void drain_show_progress(struct drain *drain);
int drain_tell(struct drain *drain, bool json, struct err *err) MUST_CHECK;

#endif
