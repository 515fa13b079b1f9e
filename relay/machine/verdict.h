/*
 * verdict - from what a backend said about each message of a batch, and from what is known of earlier tries,
 * to what the transaction does with its row and what is to be told of each channel. Pure: it asks and changes
 * nothing else.
 *
 * This is the product's specification in one file; design.md section 4 is its table. Attempts count only
 * against evidence that the destination works: a message of the same channel was confirmed since this row was
 * last tried.
 */
#ifndef RELAY_VERDICT_H
#define RELAY_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/backoff.h"
#include "message/batch.h"

struct verdict_rules {
    uint32_t max_attempts;    /* 0 = never give up */
    int64_t give_up_after_ms; /* 0 = never */
    int64_t
        hold_max_ms; /* breaker.open_max: what is held waits no longer than a channel rests; 0 = any time */
    bool hasty; /* somebody waits for the end: what is set aside is tried again sooner, the first times */
};

struct verdict_context {
    const struct verdict_rules *rules;
    struct backoff *backoff; /* retry.backoff_min .. backoff_max */
    int64_t began_ms;        /* when publishing began */
    const char *loss;        /* why the session was lost; NULL = it was not */
    bool single; /* suspect mode: one refusal without evidence must not stop the channel's other rows */
};

/* The words of dead_letter.reason. */
enum verdict_burial { VERDICT_REJECTED, VERDICT_EXPIRED, VERDICT_ATTEMPTS, VERDICT_AGE, VERDICT_BURIALS };

/* What is to be told of one channel of the batch; rows are borrowed from it. */
struct verdict_channel {
    struct bytes name;
    size_t rows;
    size_t settled;   /* its rows with a verdict of the backend */
    size_t held;      /* of them, those whose destination cannot take them now */
    size_t walled;    /* of those, by the verdict HOLD: it is not one message's own fault */
    size_t confirmed; /* its destination works */
    size_t few;       /* held ones that wait on their own: the channel goes on, at half of its rows */
    size_t lent;
    int64_t took_ms;        /* the longest that one with a verdict was out for */
    int64_t out_since_ms;   /* when the first of those without was lent; INT64_MAX = there is none */
    const struct row *wall; /* the first held one of a channel that is to rest; NULL = it is not */
    bool tentative;         /* unless it is the first refusal since its last confirm */
    bool costly;            /* a refusal of its message cost the session, and nothing of it was confirmed */
    int64_t retry_after_ms; /* the longest that was asked for; 0 = a backoff */
    struct {
        size_t rows;
        const struct row *first;
    } buried[VERDICT_BURIALS];
};

struct tally {
    size_t confirmed;
    size_t held;
    size_t retried;
    size_t buried;
    size_t unsettled;
    uint64_t payload_bytes; /* of the confirmed */
    int64_t next_due_ms;    /* shortest wait of the retried; -1 = none */
};

struct verdict {
    struct tally tally;
    struct verdict_channel *channels;
    size_t count;
    size_t capacity;
    size_t *slots; /* 1 + index of a channel, by hash; 0 = free */
};

/* For batches of `capacity` rows at most. verdict_finish() either way. */
int verdict_init(struct verdict *verdict, size_t capacity, struct err *err) MUST_CHECK;
void verdict_finish(struct verdict *verdict);

/* Sets the fates of all rows. */
void verdict_decide(struct verdict *verdict, struct batch *batch, const struct verdict_context *context);

#endif
