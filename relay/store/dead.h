/* dead - dead letters, for the operator: look at them, send them again, throw them away. */
#ifndef RELAY_DEAD_H
#define RELAY_DEAD_H

#include <stdint.h>

#include "base/err.h"
#include "postgres/pg.h"

/* Which of them; NULL and -1 = any. */
struct dead_filter {
    const char *ids;     /* uuid[] literal */
    const char *reason;  /* rejected, expired, attempts, age */
    const char *channel; /* LIKE pattern */
    int64_t since_ms;    /* died at most so long ago */
};

/* All texts are borrowed for the call. */
struct dead_letter {
    const char *id;
    const char *channel;
    const char *type;
    const char *key; /* NULL = none */
    const char *reason;
    const char *attempts;
    const char *backend;
    const char *died_at;
    const char *error;
    const char *seq;
};

/* How many of one channel and reason. */
struct dead_count {
    const char *channel;
    const char *reason;
    int64_t count;
    const char *error; /* of one of them */
};

/* A whole one; payload and payload_base64 are NULL where it has none. */
struct dead_export {
    const char *fields; /* JSON object of all columns but the payload */
    const char *payload;
    const char *payload_base64;
};

int dead_list(struct pg *pg, const struct dead_filter *filter, int64_t limit,
              void (*see)(void *context, const struct dead_letter *letter), void *context,
              struct err *err) MUST_CHECK;
int dead_count(struct pg *pg, const struct dead_filter *filter,
               void (*see)(void *context, const struct dead_count *count), void *context,
               struct err *err) MUST_CHECK;

/* Oldest first, at most `limit`, some at a time in memory. */
int dead_each(struct pg *pg, const struct dead_filter *filter, int64_t limit,
              void (*see)(void *context, const struct dead_export *letter), void *context,
              struct err *err) MUST_CHECK;

/* The entry of the newest one, 0 if there is none: the bound of a round of changes. */
int dead_newest(struct pg *pg, int64_t *entry, struct err *err) MUST_CHECK;

/* Up to the entry `newest`, at most `limit` at once, oldest first; *moved tells how many. */
int dead_retry(struct pg *pg, const struct dead_filter *filter, int64_t newest, int64_t limit, int64_t *moved,
               struct err *err) MUST_CHECK;
int dead_discard(struct pg *pg, const struct dead_filter *filter, int64_t newest, int64_t limit,
                 int64_t *gone, struct err *err) MUST_CHECK;

#endif
