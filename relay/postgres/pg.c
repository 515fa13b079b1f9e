#include "postgres/pg.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/secrets.h"
#include "postgres/pg_state.h"
#include "postgres/sqlstate.h"

/* The options that this file needs from libpq 14: pipeline mode. */
#ifndef LIBPQ_HAS_PIPELINING
#error "libpq 14 or newer is needed (pipeline mode)"
#endif

struct pg_rows {
    PGresult *result;
    bool binary;
};

void pg_copy_first_line(char *out, size_t out_bytes, const char *message)
{
    secrets_copy(out, out_bytes, (struct bytes){message, strcspn(message, "\n")});
}

int pg_connection_failed(struct pg *pg, struct err *err)
{
    char line[400];
    pg_copy_first_line(line, sizeof line, PQerrorMessage(pg->conn));
    return err_set(err, ERR_CONNECTION, "%s", line[0] ? line : "the connection to PostgreSQL was lost");
}

/* The function, of whom the server was executing something: "" = none, or not said in English. Of the rest
 * of a context nothing is told: it may quote values. */
static struct bytes function_of(const PGresult *result)
{
    static const char begins[] = "PL/pgSQL function ";
    const char *context = PQresultErrorField(result, PG_DIAG_CONTEXT);
    const char *found = context ? strstr(context, begins) : NULL;
    const char *name = found ? found + sizeof begins - 1 : "";
    size_t len = strcspn(name, ")\n"); /* its arguments' types belong to it */
    return (struct bytes){name, len + (name[len] == ')')};
}

static int result_failed(const PGresult *result, struct err *err)
{
    if (err_is_set(err)) {
        return -1;
    }
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    char line[400];
    char function[100];
    pg_copy_first_line(line, sizeof line, primary ? primary : PQresultErrorMessage(result));
    secrets_copy(function, sizeof function, function_of(result));
    bool foreign = PQresultErrorField(result, PG_DIAG_CONTEXT) && strncmp(function, "outbox.", 7) != 0;
    (void)err_set(err, sqlstate ? sqlstate_class(sqlstate) : ERR_CONNECTION, "%s%s%s%s%s%s%s", line,
                  sqlstate ? " (SQLSTATE " : "", sqlstate ? sqlstate : "", sqlstate ? ")" : "",
                  foreign && function[0] ? " in function " : "", foreign ? function : "",
                  sqlstate ? sqlstate_advice(sqlstate, line, foreign) : "");
    if (sqlstate) {
        memcpy(err->sqlstate, sqlstate, 5);
        err->sqlstate[5] = '\0';
    }
    return -1;
}

int pg_wait_socket(struct pg *pg, short events, int64_t deadline_ms, struct err *err)
{
    struct pollfd fds[2] = {{.fd = PQsocket(pg->conn), .events = events},
                            {.fd = pg->cancel_fd, .events = POLLIN}};
    for (;;) {
        int ready = poll(fds, 2, clock_poll_timeout(deadline_ms, 60000));
        if (ready < 0 && errno != EINTR) {
            return err_set(err, ERR_INTERNAL, "poll failed: %s", strerror(errno));
        }
        if (ready > 0 && fds[1].revents) {
            return err_set(err, ERR_STOPPED, "stopped while waiting for PostgreSQL");
        }
        if (ready > 0) {
            return 0;
        }
        if (clock_now_ms() >= deadline_ms) {
            return err_set(err, ERR_CONNECTION, "PostgreSQL did not answer in time");
        }
    }
}

void pg_close(struct pg *pg)
{
    if (pg) {
        pg_cancel_statement(pg);
        PQfinish(pg->conn);
        free(pg);
    }
}

void pg_cancel_on(struct pg *pg, int cancel_fd)
{
    pg->cancel_fd = cancel_fd;
}

int pg_socket(const struct pg *pg)
{
    return pg ? PQsocket(pg->conn) : -1;
}

int pg_send(struct pg *pg, const char *sql, size_t count, const char *const *values, bool binary,
            struct err *err)
{
    if (PQsendQueryParams(pg->conn, sql, (int)count, NULL, values, NULL, NULL, binary) != 1) {
        return pg_connection_failed(pg, err);
    }
    pg->unanswered++;
    return 0;
}

/* Writes what is queued, reading meanwhile: both sides may otherwise wait on full sockets. */
static int flush(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    for (;;) {
        int left = PQflush(pg->conn);
        if (left == 0) {
            return 0;
        }
        if (left < 0) {
            return pg_connection_failed(pg, err);
        }
        if (pg_wait_socket(pg, POLLIN | POLLOUT, deadline_ms, err) != 0) {
            return -1;
        }
        if (PQconsumeInput(pg->conn) != 1) {
            return pg_connection_failed(pg, err);
        }
    }
}

int pg_sync(struct pg *pg, struct err *err)
{
    if (PQpipelineSync(pg->conn) != 1) {
        return pg_connection_failed(pg, err);
    }
    pg->sync_pending = true;
    return 0;
}

static int next_result(struct pg *pg, PGresult **out, int64_t deadline_ms, struct err *err)
{
    if (flush(pg, deadline_ms, err) != 0) {
        return -1;
    }
    while (PQisBusy(pg->conn)) {
        if (pg_wait_socket(pg, POLLIN, deadline_ms, err) != 0) {
            return -1;
        }
        if (PQconsumeInput(pg->conn) != 1) {
            return pg_connection_failed(pg, err);
        }
    }
    *out = PQgetResult(pg->conn);
    return 0;
}

/* The NULL that libpq puts behind each statement's answers. */
static int skip_separator(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    PGresult *result = NULL;
    do {
        PQclear(result);
        if (next_result(pg, &result, deadline_ms, err) != 0) {
            return -1;
        }
    } while (result);
    return 0;
}

int pg_result(struct pg *pg, struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    PGresult *result = NULL;
    if (next_result(pg, &result, deadline_ms, err) != 0) {
        return -1;
    }
    ExecStatusType status = PQresultStatus(result);
    if (!result || (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)) {
        if (status == PGRES_PIPELINE_ABORTED) {
            (void)err_set(err, ERR_RETRY, "skipped, because an earlier statement failed");
        } else {
            (void)result_failed(result, err);
        }
        PQclear(result);
        if (PQstatus(pg->conn) != CONNECTION_BAD && result && skip_separator(pg, deadline_ms, err) == 0) {
            pg->unanswered--;
        }
        return -1;
    }
    struct pg_rows *rows = malloc(sizeof *rows);
    if (!rows) {
        PQclear(result);
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    *rows = (struct pg_rows){result, PQnfields(result) > 0 && PQfformat(result, 0) == 1};
    if (skip_separator(pg, deadline_ms, err) != 0) {
        pg_rows_free(rows);
        return -1;
    }
    pg->unanswered--;
    *out = rows;
    return 0;
}

int pg_end(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    while (pg->unanswered > 0) {
        struct pg_rows *rows = NULL;
        size_t before = pg->unanswered;
        if (pg_result(pg, &rows, deadline_ms, err) == 0) {
            pg_rows_free(rows);
        } else if (pg->unanswered == before) {
            return -1; /* the connection itself failed */
        }
    }
    if (!pg->sync_pending) {
        return err_is_set(err) ? -1 : 0;
    }
    PGresult *result = NULL;
    if (next_result(pg, &result, deadline_ms, err) != 0) {
        return -1;
    }
    bool synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
    PQclear(result);
    pg->sync_pending = false;
    if (!synced) {
        return pg_connection_failed(pg, err);
    }
    return err_is_set(err) ? -1 : 0;
}

int pg_last(struct pg *pg, struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    int result = pg_result(pg, &rows, deadline_ms, err);
    if (pg_end(pg, deadline_ms, err) != 0 || result != 0 || !rows) {
        pg_rows_free(rows);
        return -1;
    }
    if (out) {
        *out = rows;
    } else {
        pg_rows_free(rows);
    }
    return 0;
}

int pg_query(struct pg *pg, const char *sql, size_t count, const char *const *values, struct pg_rows **out,
             int64_t deadline_ms, struct err *err)
{
    if (pg_send(pg, sql, count, values, false, err) != 0 || pg_sync(pg, err) != 0) {
        return -1;
    }
    return pg_last(pg, out, deadline_ms, err);
}

int pg_is_pooled(struct pg *pg, bool *pooled, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    const char *mode = PQparameterStatus(pg->conn, "pgbouncer.pool_mode");
    if (mode) { /* its own word: with pool_mode = session the server connection is ours until we go */
        *pooled = pg->pooled = strcmp(mode, "session") != 0;
        return 0;
    }
    if (pg_query(pg, "SELECT pg_catalog.pg_backend_pid()", 0, NULL, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    *pooled = pg->pooled = pg_number(rows, 0, 0, 0) != PQbackendPID(pg->conn);
    pg_rows_free(rows);
    return 0;
}

bool pg_pooled(const struct pg *pg)
{
    return pg->pooled;
}

int pg_script(struct pg *pg, const char *sql, int64_t deadline_ms, struct err *err)
{
    if (PQexitPipelineMode(pg->conn) != 1 || PQsendQuery(pg->conn, sql) != 1) {
        return pg_connection_failed(pg, err);
    }
    PGresult *result = NULL;
    for (;;) {
        if (next_result(pg, &result, deadline_ms, err) != 0) {
            return -1;
        }
        if (!result) {
            break;
        }
        if (PQresultStatus(result) == PGRES_FATAL_ERROR) {
            (void)result_failed(result, err);
        }
        PQclear(result);
    }
    if (PQenterPipelineMode(pg->conn) != 1) {
        return pg_connection_failed(pg, err);
    }
    return err_is_set(err) ? -1 : 0;
}

void pg_rows_free(struct pg_rows *rows)
{
    if (rows) {
        PQclear(rows->result);
        free(rows);
    }
}

size_t pg_rows_count(const struct pg_rows *rows)
{
    return (size_t)PQntuples(rows->result);
}

int pg_columns_count(const struct pg_rows *rows)
{
    return PQnfields(rows->result);
}

bool pg_did(const struct pg_rows *rows, const char *command)
{
    return strcmp(PQcmdStatus(rows->result), command) == 0;
}

size_t pg_rows_affected(const struct pg_rows *rows)
{
    return (size_t)strtoul(PQcmdTuples(rows->result), NULL, 10);
}

bool pg_is_null(const struct pg_rows *rows, size_t row, int column)
{
    return PQgetisnull(rows->result, (int)row, column) == 1;
}

struct bytes pg_value(const struct pg_rows *rows, size_t row, int column)
{
    if (pg_is_null(rows, row, column)) {
        return (struct bytes){"", 0};
    }
    return (struct bytes){PQgetvalue(rows->result, (int)row, column),
                          (size_t)PQgetlength(rows->result, (int)row, column)};
}

int64_t pg_number(const struct pg_rows *rows, size_t row, int column, int64_t otherwise)
{
    if (pg_is_null(rows, row, column)) {
        return otherwise;
    }
    struct bytes value = pg_value(rows, row, column);
    if (!rows->binary) {
        return value.ptr[0] == 't' ? 1 : strtoll(value.ptr, NULL, 10);
    }
    uint64_t number = value.len > 0 && (value.ptr[0] & 0x80) ? UINT64_MAX : 0; /* sign, network byte order */
    for (size_t at = 0; at < value.len; at++) {
        number = number << 8 | (unsigned char)value.ptr[at];
    }
    return (int64_t)number;
}

const char *pg_text(const struct pg_rows *rows, size_t row, int column)
{
    return PQgetvalue(rows->result, (int)row, column);
}

int pg_library_version(void)
{
    return PQlibVersion();
}
