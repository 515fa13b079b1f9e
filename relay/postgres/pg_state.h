/* pg_state - what pg.c and pg_connect.c share; nobody else includes it. */
#ifndef RELAY_PG_STATE_H
#define RELAY_PG_STATE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct pg {
    PGconn *conn;
    int cancel_fd;
    size_t unanswered; /* statements of the current group without an answer */
    bool sync_pending;
    bool pooled; /* as pg_is_pooled() found it */
};

/* Waits for the socket; events as for poll(). 0 = ready. */
int pg_wait_socket(struct pg *pg, short events, int64_t deadline_ms, struct err *err) MUST_CHECK;

/* Fills *err from what libpq says of the connection. Always returns -1. */
int pg_connection_failed(struct pg *pg, struct err *err);

/* Tells the server to give up the statement that nobody waits for any more. */
void pg_cancel_statement(struct pg *pg);

/* The first line of libpq's text: DETAIL and CONTEXT lines may carry row data. */
void pg_copy_first_line(char *out, size_t out_bytes, const char *message);

#endif
