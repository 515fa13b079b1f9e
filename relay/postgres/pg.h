/*
 * pg - one PostgreSQL connection; only pg*.c know libpq.
 *
 * Statements are unnamed and pipelined: pg_send() queues them, pg_sync() ends the group and sends it,
 * pg_result() fetches one answer per statement in order, pg_end() the end of the group. Each statement has
 * its own snapshot. After an error the rest of its group is skipped by the server. Every wait has a deadline
 * and ends when cancel_fd becomes readable; after that, as after any ERR_CONNECTION, the connection is good
 * for pg_close() only.
 *
 * A connection belongs to one thread.
 */
#ifndef RELAY_PG_H
#define RELAY_PG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct pg;
struct pg_rows;

struct pg_options {
    const char *conninfo;    /* untouched to libpq: URI or key=value */
    const char *client_name; /* fallback_application_name */
    int cancel_fd;           /* readable = stop waiting; -1 = none */
};

/*
 * Connects to a server that takes writes. Of several hosts each has its share of the time, and no more than
 * connect_timeout, if that is given. *out is the caller's.
 */
int pg_open(struct pg **out, const struct pg_options *options, int64_t deadline_ms,
            struct err *err) MUST_CHECK;

/* Accepts NULL. A statement that is still running is cancelled; the server rolls back what was open. */
void pg_close(struct pg *pg);

/*
 * Whether a pooler that may change the server connection stands in between: PgBouncer 1.26 and newer says so;
 * else the server is asked for its process, which differs from the one that the handshake named.
 */
int pg_is_pooled(struct pg *pg, bool *pooled, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* What pg_is_pooled() found; false before. */
bool pg_pooled(const struct pg *pg);

/* From now on, waits end when this descriptor becomes readable. */
void pg_cancel_on(struct pg *pg, int cancel_fd);

/* The socket, for a watcher that looks for its death; -1 without one. */
int pg_socket(const struct pg *pg);

/* Queues a statement; values are texts, NULL is NULL. binary: its columns come in binary format. */
int pg_send(struct pg *pg, const char *sql, size_t count, const char *const *values, bool binary,
            struct err *err) MUST_CHECK;
int pg_sync(struct pg *pg, struct err *err) MUST_CHECK;

/* The next statement's answer; *out is the caller's. A server error fills *err, with its SQLSTATE. */
int pg_result(struct pg *pg, struct pg_rows **out, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* Reads on to the end of the group, whatever is left of it; keeps the first error in *err. */
int pg_end(struct pg *pg, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* The answer of a group's last statement, and its end. out may be NULL. */
int pg_last(struct pg *pg, struct pg_rows **out, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* One statement as its own group. out may be NULL. */
int pg_query(struct pg *pg, const char *sql, size_t count, const char *const *values, struct pg_rows **out,
             int64_t deadline_ms, struct err *err) MUST_CHECK;

/* A whole .sql file, several statements in one implicit transaction. */
int pg_script(struct pg *pg, const char *sql, int64_t deadline_ms, struct err *err) MUST_CHECK;

void pg_rows_free(struct pg_rows *rows); /* accepts NULL */
size_t pg_rows_count(const struct pg_rows *rows);
int pg_columns_count(const struct pg_rows *rows);
bool pg_did(const struct pg_rows *rows,
            const char *command);                    /* the command tag: a COMMIT may answer ROLLBACK */
size_t pg_rows_affected(const struct pg_rows *rows); /* of INSERT, UPDATE, DELETE */
bool pg_is_null(const struct pg_rows *rows, size_t row, int column);

/* Borrowed from rows; empty for NULL. */
struct bytes pg_value(const struct pg_rows *rows, size_t row, int column);

/* A number, of text or of binary format (int2, int4, int8, bool); `otherwise` for NULL. */
int64_t pg_number(const struct pg_rows *rows, size_t row, int column, int64_t otherwise);

/* Texts in text format only: NUL-terminated, borrowed. */
const char *pg_text(const struct pg_rows *rows, size_t row, int column);

/* Over a network to another host, by TCP without TLS or GSSAPI? */
bool pg_is_in_clear(const struct pg *pg);

int pg_library_version(void);

#endif
