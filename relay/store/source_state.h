/*
 * source_state - what one source has in hand, and the steps of it that live in files of their own. For
 * source*.c only.
 */
#ifndef RELAY_SOURCE_STATE_H
#define RELAY_SOURCE_STATE_H

#include "base/bytes.h"
#include "postgres/pg.h"
#include "store/schema.h"
#include "store/source.h"
#include "store/source_row.h"

/* STATEMENTS_MS: what claim and settle may take of a transaction, beside the publish. */
enum {
    ANSWER_WITHIN_MS = 15000,
    STATEMENTS_MS = 60000,
    NUMBER_BYTES = 24,
    SOURCE_PAUSED_MAX_BYTES = 256 << 10,
    CHANNEL_MAX_BYTES = 1024 /* of its name; the schema's limit is 255 */
};

/* The key at which the last walk over a lane ended, by the hashes of the index: the next one begins behind
 * it. */
struct cursor {
    int64_t channel_hash;
    int64_t key_hash;
};

/* Where claims by key go on: in lanes, and in each of them. */
struct walk {
    int64_t first_lane;                      /* where the next one begins to look for lanes */
    int64_t last_lane;                       /* the last one that the claim before it obtained; -1 = none */
    struct cursor cursors[SCHEMA_MAX_LANES]; /* by lane */
};

enum { WALK_ALL, WALK_NAMED, WALKS };

struct source {
    struct pg *pg;
    struct source_options options;
    size_t limit;       /* rows per claim that the byte bound has lately left us */
    bool full_poll;     /* the claim on its way ignores the mark */
    bool pooled;        /* a pooler releases its server connection only when a COMMIT ends the round trip */
    bool cut;           /* the last claim: there may be more of what it asked for */
    bool backwards;     /* see struct settled */
    bool asking;        /* a refresh of the mark is on its way */
    struct text paused; /* text[] literal of the paused channels that the last transaction saw */
    struct text paused_patterns; /* and of the patterns */
    bool promotes;               /* the claim on its way tries to */
    size_t promoted;             /* by the last claim */
    struct text promote_from;    /* channel behind which the next ones have their turn to be promoted */
    uint64_t random;             /* state of the numbers that lanes are chosen by */
    struct walk walks[WALKS]; /* of claims for whatever comes, and for named channels: these go past others */
    struct schema_order order; /* as it was when we connected */
    char mask[NUMBER_BYTES];   /* lanes - 1, for the queries */
    struct mark_question question;
    char idle_timeout[NUMBER_BYTES];        /* while the backend publishes, in ms */
    char transaction_timeout[NUMBER_BYTES]; /* of all of it */
    char max_message[NUMBER_BYTES];         /* bytes */
};

/* ---- source_link.c: BEGIN and its guards, and the answers of a group ---- */

int64_t source_answer_deadline(void);
void source_put_number(char out[NUMBER_BYTES], int64_t number);

/* Reads `count` answers of which only the success matters. */
int source_skip_answers(struct source *source, int count, struct err *err) MUST_CHECK;

int source_send_begin(struct source *source, struct err *err) MUST_CHECK;

/* Also refuses to go on if the outbox's order is no longer the one that this relay was started with. */
int source_read_begin(struct source *source, struct err *err) MUST_CHECK;

/* Ends the group after its answers were read, or skips what an error left of it. */
int source_end_group(struct source *source, int result, struct err *err) MUST_CHECK;

/* ---- source_claim.c: BEGIN, and the statements that lock rows ---- */

int source_send_claim(struct source *source, const struct source_request *request,
                      struct err *err) MUST_CHECK;

/* The first walks over the keys begin somewhere: not all workers at the same key. */
void source_scatter(struct source *source);

/* Reads all answers of source_send_claim(); the group's end stays to be read. */
int source_read_claim(struct source *source, const struct source_request *request, struct batch *batch,
                      struct err *err) MUST_CHECK;

/* ---- source_mark.c: where claims start; see mark.h ---- */

/* Hash of all that decides which rows a claim may see. */
uint64_t source_filter(const struct source *source, const struct source_request *request);

/* The first half goes in front of the claim: locking a row takes the xid that must come after it. */
int source_send_mark_sequence(struct source *source, enum mark_place place, uint64_t filter, bool idle,
                              struct err *err) MUST_CHECK;
int source_send_mark_rows(struct source *source, const struct source_request *request,
                          struct err *err) MUST_CHECK;
int source_read_mark_sequence(struct source *source, int64_t *highest, struct err *err) MUST_CHECK;
int source_read_mark_rows(struct source *source, int64_t highest, struct err *err) MUST_CHECK;

/* What a full poll found must not lie below the mark. */
void source_check_full_poll(struct source *source, int64_t first_seq); /* MARK_NONE */

#endif
