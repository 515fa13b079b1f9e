/*
 * source - the outbox table as the loop sees it: claim, settle, commit, look. The only file with the loop's
 * queries.
 *
 * A row leaves outbox.message only in the transaction that locked it. An error from any call means: what
 * became of the transaction is unknown, close the source, forget the batch, open another, claim again.
 *
 * One source belongs to one worker thread; the mark is shared.
 */
#ifndef RELAY_SOURCE_H
#define RELAY_SOURCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "message/batch.h"
#include "store/mark.h"

struct source;

/* Delayed messages that cannot enter outbox.message must not keep the others: they are tried again later.
 * What the workers of a process share. */
struct promotion {
    _Atomic int64_t not_before_ms; /* clock_now_ms(); 0 = at once */
    atomic_uint failures;          /* in a row */
};

/* Deletions that are refused: for a while, confirmed rows are deleted so that one keeps no other. What the
 * workers of a process share. */
struct caution {
    _Atomic int64_t until_ms; /* clock_now_ms(); 0 = none */
};

struct source_options {
    const char *conninfo;
    const char *client_name;
    const char *backend; /* for dead letters */
    const char *include; /* text[] literals of LIKE patterns; NULL = no filter */
    const char *exclude;
    bool ordered;              /* order: key; the outbox must agree */
    int64_t workers;           /* of this process: they share the lanes */
    int64_t max_bytes;         /* of payloads and headers in one claim */
    int64_t max_message_bytes; /* what is larger is refused, without loading it */
    int64_t transaction_ms;    /* the server ends our transaction when it idles longer */
    struct mark *mark;
    struct promotion *promotion;
    struct caution *caution;
    const struct log *log;
};

/* What to claim. */
enum claim_kind {
    CLAIM_MESSAGES = 0, /* rows of outbox.message; with order by key those without a key */
    CLAIM_KEYED,        /* order by key: rows at the head of their key */
    CLAIM_SCHEDULED,    /* retries that are due; delayed messages that are due enter outbox.message */
    CLAIM_SUSPECT       /* the one row suspect_seq of outbox.message, if it may be sent now */
};

struct source_request {
    enum claim_kind kind;
    size_t max_messages;
    const char *resting; /* text[] literal of channels that are not claimed now; "{}" = none */
    const char *only; /* text[] literal of names: these channels alone; NULL = all that the options let in */
    int64_t suspect_seq;
    bool of_few;           /* of some channels only, that have few rows: it may take more of their lanes */
    enum mark_place place; /* which mark is asked for what this claim sees */
};

struct source_look {
    bool waiting;   /* a row that a claim might get */
    bool scheduled; /* something is due in outbox.scheduled */
};

/* stop_fd: ends the connecting; halt_fd: ends any later wait. */
int source_open(struct source **out, const struct source_options *options, int stop_fd, int halt_fd,
                int64_t deadline_ms, struct err *err) MUST_CHECK;
void source_close(struct source *source); /* accepts NULL; what was open is rolled back by the server */
int source_socket(const struct source *source);

/* BEGIN, and lock what there is. The transaction stays open if batch->count > 0; otherwise it has ended. */
int source_claim(struct source *source, const struct source_request *request, struct batch *batch,
                 struct err *err) MUST_CHECK;

/* What the operator had paused when the last transaction began: text[] literals of channels and of LIKE
 * patterns. */
const char *source_paused(const struct source *source);
const char *source_paused_patterns(const struct source *source);

/* Was the last claim full, of rows or bytes? Then there may be more of what it asked for. */
bool source_was_cut(const struct source *source);

/* How many delayed messages have entered outbox.message with the last claim. */
size_t source_promoted(const struct source *source);

/* Does to each row what its fate says. The batch's payloads may be dropped afterwards. */
int source_settle(struct source *source, const struct batch *batch, struct settled *settled,
                  struct err *err) MUST_CHECK;

/*
 * COMMIT; with `next`, also BEGIN and the next claim into the same batch, all in one round trip. *settled is
 * that of source_settle(), and is completed.
 */
int source_commit(struct source *source, const struct source_request *next, struct batch *batch,
                  struct settled *settled, struct err *err) MUST_CHECK;

/* One unlocked look, in one round trip, outside any transaction of ours. */
int source_look(struct source *source, const struct source_request *request, struct source_look *look,
                struct err *err) MUST_CHECK;

#endif
