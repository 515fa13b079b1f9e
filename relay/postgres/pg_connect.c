/* pg_connect - opening a connection: host by host, each with its share of the time. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/secrets.h"
#include "postgres/lookup.h"
#include "postgres/pg.h"
#include "postgres/pg_hosts.h"
#include "postgres/pg_state.h"
#include "postgres/sqlstate.h"

static void drop_notice(void *unused, const PGresult *result)
{
    (void)unused; /* notices of migrations and functions are not for our log: they may quote rows */
    (void)result;
}

/* libpq 15 gives no SQLSTATE for a failed connect: with verbose errors it stands in the text, "FATAL:  28P01:
 * ...". */
static int connect_failed(PGconn *conn, int error_number, struct err *err)
{
    const char *message = PQerrorMessage(conn);
    char line[400];
    pg_copy_first_line(line, sizeof line, message);
    for (const char *at = strstr(message, ":  "); at; at = strstr(at + 1, ":  ")) {
        const char *code = at + 3;
        if (strspn(code, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && code[5] == ':') {
            char sqlstate[6] = {0};
            memcpy(sqlstate, code, 5);
            pg_copy_first_line(line, sizeof line, code + 7);
            enum err_class class = sqlstate_class(sqlstate);
            (void)err_set(err, class == ERR_INTERNAL ? ERR_CONNECTION : class, "%s (SQLSTATE %s)", line,
                          sqlstate);
            memcpy(err->sqlstate, sqlstate, sizeof sqlstate);
            return -1;
        }
    }
    if (line[0]) {
        bool read_only = strstr(line, "read-only") != NULL;
        return err_set(err, ERR_CONNECTION, "%s%s", line,
                       read_only
                           ? ": a standby, or default_transaction_read_only is set for this role or database"
                           : "");
    }
    /* libpq 16 and newer may end without a word where it cannot open a socket. */
    return err_set(err, ERR_CONNECTION, "cannot connect to PostgreSQL%s%s", error_number != 0 ? ": " : "",
                   error_number != 0 ? strerror(error_number) : "");
}

static int finish_connect(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;
    int error_number = 0;
    while (state != PGRES_POLLING_OK) {
        if (state == PGRES_POLLING_FAILED) {
            return connect_failed(pg->conn, error_number, err);
        }
        if (pg_wait_socket(pg, state == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_ms, err) != 0) {
            return -1;
        }
        errno = 0;
        state = PQconnectPoll(pg->conn);
        error_number = errno;
    }
    const char *encoding = PQparameterStatus(pg->conn, "client_encoding");
    if (!encoding || strcmp(encoding, "UTF8") != 0) {
        return err_set(err, ERR_CONFIG, "client_encoding is %s where UTF8 was asked for",
                       encoding ? encoding : "unknown");
    }
    const char *stored = PQparameterStatus(pg->conn, "server_encoding");
    if (stored && strcmp(stored, "UTF8") != 0) {
        return err_set(err, ERR_CONFIG,
                       "the database's encoding is %s, and an outbox needs UTF8, or one day a text cannot be "
                       "written: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
                       stored);
    }
    /* PgBouncer 1.26 and newer says so when it greets. */
    const char *mode = PQparameterStatus(pg->conn, "pgbouncer.pool_mode");
    if (mode && strcmp(mode, "statement") == 0) {
        return err_set(
            err, ERR_CONFIG,
            "PgBouncer pools single statements here, and a relay needs transactions: set pool_mode = "
            "transaction for this database, or connect past the pooler");
    }
    if (PQsetnonblocking(pg->conn, 1) != 0 || PQenterPipelineMode(pg->conn) != 1) {
        return pg_connection_failed(pg, err);
    }
    (void)PQsetErrorVerbosity(pg->conn, PQERRORS_DEFAULT);
    return 0;
}

bool pg_is_in_clear(const struct pg *pg)
{
    const char *address = PQhostaddr(pg->conn); /* empty for a socket's file */
    bool here = !address || !address[0] || strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0;
    return !here && !PQsslInUse(pg->conn) && !PQgssEncInUse(pg->conn);
}

/* In front of dbname: defaults that conninfo may override. Behind it: what must hold. */
static PGconn *start(const struct pg_options *options, const struct pg_host *host)
{
    const char *const names[] = {"fallback_application_name",
                                 "keepalives_idle",
                                 "keepalives_interval",
                                 "keepalives_count",
                                 "tcp_user_timeout",
                                 "dbname",
                                 "client_encoding",
                                 "target_session_attrs",
                                 "host",
                                 "hostaddr",
                                 "port",
                                 NULL};
    const char *const values[] = {options->client_name, "10",   "5",          "3",        "15000",
                                  options->conninfo,    "UTF8", "read-write", host->name, host->address,
                                  host->port,           NULL};
    return PQconnectStartParams(names, values, 1);
}

/* 'invalid port number: "..."': the value is what somebody put where a port belongs. */
static void hide_value(char *text)
{
    static const char stars[] = "***";
    char *from = strchr(text, '"');
    char *option = strstr(text, "\" for connection option");
    char *to = option ? option : strrchr(text, '"');
    if (from && to > from + sizeof stars) {
        memcpy(from + 1, stars, sizeof stars - 1);
        memmove(from + sizeof stars, to, strlen(to) + 1);
    }
}

static int open_host(struct pg *pg, const struct pg_options *options, const struct pg_host *host,
                     int64_t deadline_ms, struct err *err)
{
    if (host->lookup[0] && lookup_host(host->lookup, pg->cancel_fd, deadline_ms, err) != 0) {
        return -1;
    }
    errno = 0;
    pg->conn = start(options, host);
    int error_number = errno;
    if (!pg->conn) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    secrets_add(bytes_of(PQpass(pg->conn))); /* it may stand in a password file, or in that of a service */
    (void)PQsetNoticeReceiver(pg->conn, drop_notice, NULL);
    (void)PQsetErrorVerbosity(pg->conn, PQERRORS_VERBOSE);
    if (PQstatus(pg->conn) != CONNECTION_BAD) {
        return finish_connect(pg, deadline_ms, err);
    }
    (void)connect_failed(pg->conn, error_number, err);
    if (strncmp(err->text, "invalid ", 8) == 0) {
        err->class = ERR_CONFIG; /* libpq refused a value before it tried any host */
        hide_value(err->text);
    }
    return -1;
}

/* As libpq does: a host that is away, starting or read-only is passed over; one that refuses us is an answer.
 * The error is that of the last host; of the others it tells why, too. */
static int open_any(struct pg *pg, const struct pg_options *options, const struct pg_hosts *hosts,
                    int64_t deadline_ms, struct err *err)
{
    struct err last = {0};
    for (size_t at = 0; at < hosts->count; at++) {
        int64_t now_ms = clock_now_ms();
        int64_t until_ms = clock_after(now_ms, (deadline_ms - now_ms) / (int64_t)(hosts->count - at));
        if (hosts->timeout_ms > 0 && hosts->timeout_ms < until_ms - now_ms) {
            until_ms = clock_after(now_ms, hosts->timeout_ms);
        }
        struct err failure = {0};
        if (open_host(pg, options, &hosts->list[at], until_ms, &failure) == 0) {
            return 0;
        }
        PQfinish(pg->conn);
        pg->conn = NULL;
        if (err_is_set(&last)) {
            (void)err_prefix(&failure, "%s; then", last.text);
        }
        last = failure;
        if (failure.class != ERR_CONNECTION) {
            break;
        }
    }
    *err = last;
    return -1;
}

int pg_open(struct pg **out, const struct pg_options *options, int64_t deadline_ms, struct err *err)
{
    struct pg *pg = calloc(1, sizeof *pg);
    if (!pg) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    pg->cancel_fd = options->cancel_fd;
    struct pg_hosts hosts;
    int result = pg_hosts_read(&hosts, options->conninfo, err);
    if (result == 0) {
        result = open_any(pg, options, &hosts, deadline_ms, err);
    }
    pg_hosts_finish(&hosts);
    if (result != 0) {
        pg_close(pg);
        return -1;
    }
    *out = pg;
    return 0;
}
