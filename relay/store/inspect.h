/* inspect - questions to the outbox for people: what is left, what is wrong, where a message stands. */
#ifndef RELAY_INSPECT_H
#define RELAY_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "message/batch.h"
#include "postgres/pg.h"

/* Where a drain aims. */
struct inspect_target {
    int64_t seq;
    char now[64]; /* the database's clock, as text */
};

struct inspect_left {
    int64_t messages; /* up to the target, in our channels */
    int64_t resting; /* of these and of the due retries, held, paused, or behind a waiting row of their key */
    int64_t due;     /* retries that were due at the start */
    int64_t waiting; /* retries for later */
};

struct inspect_filter {
    const char *include; /* text[] literals of LIKE patterns; NULL = none */
    const char *exclude;
    const char *resting; /* text[] literal */
    bool ordered;        /* rows behind a waiting one of their key count as resting */
};

int inspect_drain_target(struct pg *pg, struct inspect_target *target, int64_t deadline_ms,
                         struct err *err) MUST_CHECK;
int inspect_drain_left(struct pg *pg, const struct inspect_target *target,
                       const struct inspect_filter *filter, struct inspect_left *left, int64_t deadline_ms,
                       struct err *err) MUST_CHECK;

/* Moves delayed messages that are due into outbox.message, all of them; the deadline is each statement's. */
int inspect_promote_all(struct pg *pg, int64_t *promoted, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* The status document, JSON text. */
int inspect_status(struct pg *pg, struct text *json, struct err *err) MUST_CHECK;

/* Does this user lack a privilege that a relay needs? Then ERR_REFUSED, naming it. */
int inspect_privileges(struct pg *pg, struct err *err) MUST_CHECK;

/* What endangers the order by key and is no reason to refuse: tells each, one sentence. */
int inspect_order_hazards(struct pg *pg, void (*tell)(void *context, const char *hazard), void *context,
                          struct err *err) MUST_CHECK;

/* Where a message stands and what it waits for. */
struct inspect_place {
    char table[64];
    char waits[1200]; /* sentences; "" = for nothing */
};

/* Reads the message into an empty batch of one, wherever it is; *found is false if there is none of that id
 * (a UUID). Locks nothing. */
int inspect_message(struct pg *pg, const char *id, struct batch *batch, struct inspect_place *place,
                    bool *found, struct err *err) MUST_CHECK;

#endif
