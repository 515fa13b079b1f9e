/*
 * limits - the limits of time that role, database and server put on a session. Those that we know we set
 * ourselves: for the loop by guards.sql, for all else here. Those that we do not know we refuse.
 */
#ifndef RELAY_LIMITS_H
#define RELAY_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "postgres/pg.h"

/*
 * Makes a new connection ours: refuses one that a limit may end in the middle of a batch, if it is none that
 * we set (ERR_CONFIG, with its name), and lets it be idle, where no pooler would give that to others.
 */
int limits_begin(struct pg *pg, bool pooled, int64_t deadline_ms, struct err *err) MUST_CHECK;

/*
 * pg_query() under our own limit: the server ends the statement when we give it up. In a transaction, its
 * limits stay: those of limits_begin_transaction().
 */
int limits_query(struct pg *pg, const char *sql, size_t count, const char *const *values,
                 struct pg_rows **out, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* The same, with columns in binary format. */
int limits_query_binary(struct pg *pg, const char *sql, size_t count, const char *const *values,
                        struct pg_rows **out, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* Begins a transaction in which each statement may take so long. */
int limits_begin_transaction(struct pg *pg, int64_t statement_ms, int64_t deadline_ms,
                             struct err *err) MUST_CHECK;

#endif
