/*
 * batch - the rows of one transaction as messages, and what became of each.
 *
 * A batch is born, published, settled and freed by one worker in one transaction. It knows no database:
 * whoever filled it leaves an owner of the memory behind, to be released with the batch.
 */
#ifndef RELAY_BATCH_H
#define RELAY_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "message/arena.h"
#include "outbox_backend.h"

/* What the transaction does with a row; decided in verdict.c, carried out in source.c. Zero is the safe one.
 */
enum row_fate {
    ROW_STAYS = 0,
    ROW_DELETED,   /* confirmed */
    ROW_SCHEDULED, /* waits in outbox.scheduled; attempts says whether this try counted */
    ROW_BURIED     /* to outbox.dead_letter */
};

struct row {
    struct outbox_message message;
    size_t before;        /* 1 + index of the row of its key that must be confirmed first; 0 = none */
    int64_t entry;        /* its entry in outbox.scheduled; 0 = it stands in outbox.message */
    int64_t tried_age_ms; /* since its last try; -1 = unknown or never */
    int64_t waited_ms;    /* how long it was told to wait after its last try; 0 = unknown or never */
    int64_t age_ms;       /* since created_at */
    int64_t ttl_ms;       /* left of it at the claim; -1 = it never expires */
    bool has_key;         /* an empty key is one, too */
    uint32_t attempts;    /* counted before this try */
    bool solo;            /* a session died on it before: sent alone */

    enum outbox_verdict verdict;
    bool withheld;   /* it may not be sent now: it stays */
    bool postponed;  /* nor with this batch */
    bool isolated;   /* withheld until nothing else is in flight */
    bool lent;       /* a backend was asked to send it */
    int64_t lent_ms; /* when, CLOCK_MONOTONIC */
    bool in_last_wave;
    bool spoiled;  /* settled twice: whatever else is said of it, nothing is known */
    bool not_sent; /* UNSETTLED in the backend's own words: it cannot have arrived */
    int64_t retry_after_ms;
    int64_t settled_ms; /* when the backend did so, CLOCK_MONOTONIC; 0 = it has not */
    const char *error;  /* sentence; never NULL */

    enum row_fate fate;
    const char *burial; /* word for dead_letter.reason */
    int64_t wait_ms;    /* until due, for ROW_SCHEDULED */
    bool refused;       /* without evidence: that it was tried is to be remembered */

    struct {                  /* what is known of earlier tries; for the verdict of a row that was refused */
        int64_t tried_ms;     /* its last try; -1 = never, or forgotten */
        int64_t confirmed_ms; /* last confirm of its channel; -1 = none, or forgotten */
    } known;
};

struct batch {
    struct outbox_batch lent; /* what a backend sees; first, so that settle() finds its way back */
    struct arena arena;
    struct row *rows;
    size_t count;
    size_t capacity;
    const struct outbox_message **messages;
    size_t *row_of; /* lent index -> row */
    bool is_lent;
    int64_t claimed_ms; /* when the rows were read, CLOCK_MONOTONIC */
    unsigned misuses;   /* settled twice, out of range, or outside publish() */
    void *owner;
    void (*release)(void *owner);
};

/* What became of a batch. Begins as zeros. */
struct settled {
    bool careful;   /* set by who asks: confirmed rows are deleted so that one keeps no other */
    bool backwards; /* likewise: the last rows first, so that it is not always the same that come too late */
    bool refused;   /* what was to happen to some rows was refused: they stay where they are */
    size_t stuck_waits;     /* of those that were to wait */
    size_t stuck_deaths;    /* of those that were to become dead letters */
    size_t stuck_confirmed; /* and of those that were to be deleted */
    bool lasts;             /* and that will not pass by itself: a trigger, a rule, a constraint */
    size_t kept;    /* confirmed rows that their DELETE left there: somebody's trigger, rule or policy */
    bool committed; /* the COMMIT is known to have succeeded, also where -1 is returned */
};

static inline struct bytes row_channel(const struct row *row)
{
    return (struct bytes){row->message.channel.ptr, row->message.channel.len};
}

/* Room for `capacity` rows at most. */
int batch_init(struct batch *batch, size_t capacity, struct err *err) MUST_CHECK;
void batch_finish(struct batch *batch); /* accepts a zeroed one */

/* Empties it and releases the memory of its rows. */
void batch_clear(struct batch *batch);

/* Frees what the payloads occupy; seq, entry, verdicts and errors stay readable, and nothing else. */
void batch_drop_payloads(struct batch *batch);

/* A zeroed row at the end; the caller fills it. NULL when full. */
struct row *batch_add(struct batch *batch);

/* Settles a row before it is sent (expired, malformed). `format` as in printf. */
void batch_refuse(struct batch *batch, struct row *row, const char *burial, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Parses a flat JSON object of scalars into message->headers; otherwise refuses the row. Where memory is
 * short, the row is settled as OUTBOX_HOLD. */
void batch_set_headers(struct batch *batch, struct row *row, struct outbox_bytes json);

/* Order by key: from now on no row is lent before the one of its key in front of it, by seq, is confirmed. */
int batch_order_by_key(struct batch *batch, struct err *err) MUST_CHECK;

/*
 * Lends a wave to a backend: the unsettled rows that were neither lent nor withheld and whose predecessors
 * are confirmed. Without order that is all of them. What has expired since the claim is refused instead. The
 * view is valid until batch_take_back().
 */
struct outbox_batch *batch_lend(struct batch *batch, int64_t now_ms);

/* What was not sent, and has expired meanwhile, is refused. */
void batch_take_back(struct batch *batch, int64_t now_ms);

/* May it be lent, unless it is withheld: neither sent nor settled, and not behind another one of its key? */
bool batch_is_next(const struct batch *batch, const struct row *row);

/* Is there another wave to lend? */
bool batch_has_wave(const struct batch *batch);

/* A plugin's retry_after is clamped: 0 to 24 h. */
int64_t batch_clamp_ms(int64_t retry_after_ms);

/* Messages of the last wave about which settle() was not called: they may have arrived. */
size_t batch_count_unknown(const struct batch *batch);

/* Messages of the last wave that were not sent, in the backend's own words. */
size_t batch_count_not_sent(const struct batch *batch);

size_t batch_count_verdict(const struct batch *batch, enum outbox_verdict verdict);

#endif
