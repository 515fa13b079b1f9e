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
    int64_t now_us; /* the database's clock, since 1970 */
};

struct inspect_left {
    int64_t messages; /* up to the target, in our channels */
    int64_t resting; /* of these and of the due retries, held, paused, or behind a waiting row of their key */
    int64_t due;     /* retries that were due at the start, and delayed messages that have no seq yet */
    int64_t waiting; /* retries for later */
    int64_t next_due_ms;   /* until the first of `awaited`; CLOCK_NEVER_MS = there is none */
    int64_t pause_ends_ms; /* until the first pause ends by itself; likewise */
    int64_t delayed;       /* of `due`, those without a seq */
    int64_t awaited;       /* of `waiting`, those that were there at the start */
};

/* Is told one sentence, which is printable. */
typedef void inspect_tell(void *context, const char *sentence);

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

/* Moves some of the delayed messages that are due into outbox.message, max_bytes at most (one always); lanes:
 * those of the order, 0 = none. *promoted = 0: there are no more, or others hold their lanes. */
int inspect_promote(struct pg *pg, int64_t max_bytes, int64_t lanes, int64_t *promoted, int64_t deadline_ms,
                    struct err *err) MUST_CHECK;

/* The status document, JSON text. */
int inspect_status(struct pg *pg, struct text *json, struct err *err) MUST_CHECK;

/* Does this user lack a privilege that a relay needs, or does a policy hide rows from him? Then ERR_REFUSED,
 * naming it. */
int inspect_privileges(struct pg *pg, struct err *err) MUST_CHECK;

/* Sessions that are none of a relay's and stand in its way: tells each, one sentence with the fix; the worst
 * first. */
int inspect_strangers(struct pg *pg, inspect_tell *tell, void *context, int64_t deadline_ms,
                      struct err *err) MUST_CHECK;

/* Begins and ends a transaction as a relay does: a pooler may not let it. */
int inspect_transaction(struct pg *pg, struct err *err) MUST_CHECK;

/* What in the schema is not its owner's: tells each, one sentence. */
int inspect_foreign_objects(struct pg *pg, inspect_tell *tell, void *context, struct err *err) MUST_CHECK;

/* Who may act as one of our roles, in this database and in others of its server: tells each role that
 * somebody may, one sentence; superusers and this user are left out. */
int inspect_role_members(struct pg *pg, inspect_tell *tell, void *context, struct err *err) MUST_CHECK;

/* What endangers the order by key and is no reason to refuse: tells each, one sentence. */
int inspect_order_hazards(struct pg *pg, inspect_tell *tell, void *context, struct err *err) MUST_CHECK;

/* Where a message stands and what it waits for. */
struct inspect_place {
    char table[64];
    char waits[1200]; /* sentences; "" = for nothing */
};

/* Reads the message into an empty batch of one, wherever it is; *found is false if there is none of that id
 * (a UUID). What has more than max_bytes is not loaded. Locks nothing. */
int inspect_message(struct pg *pg, const char *id, const struct inspect_filter *filter, int64_t max_bytes,
                    struct batch *batch, struct inspect_place *place, bool *found,
                    struct err *err) MUST_CHECK;

#endif
