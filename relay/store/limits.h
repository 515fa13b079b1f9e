/*
 * limits - what role, database and server put on a session: limits of time, and settings that change what our
 * statements see, how they are read and planned (settings.sql). Those that we know we set ourselves: limits
 * for the loop by guards.sql, for all else here. Limits that we do not know we refuse.
 */
#ifndef RELAY_LIMITS_H
#define RELAY_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "postgres/pg.h"

/*
 * pg_open(), and where no pooler would give that to others, our settings for the session; behind one they go
 * with each transaction. *pooled (may be NULL): whether there is one. *out is the caller's, NULL after -1.
 */
int limits_open(struct pg **out, const struct pg_options *options, bool *pooled, int64_t deadline_ms,
                struct err *err) MUST_CHECK;

/* Refuses a session that a limit may end in the middle of a batch, if it is none that we set (ERR_CONFIG,
 * with its name). */
int limits_check(struct pg *pg, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* pg_query() under our own limit: the server gives the statement up just before we do. */
int limits_query(struct pg *pg, const char *sql, size_t count, const char *const *values,
                 struct pg_rows **out, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* The same, with columns in binary format. */
int limits_query_binary(struct pg *pg, const char *sql, size_t count, const char *const *values,
                        struct pg_rows **out, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* BEGIN, with limits from its first moment on. */
int limits_begin(struct pg *pg, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* pg_script() under our own limit, within such a transaction. */
int limits_script(struct pg *pg, const char *sql, int64_t deadline_ms, struct err *err) MUST_CHECK;

#endif
