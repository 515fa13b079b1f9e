#include "store/limits.h"

#include <stdio.h>

#include "base/clock.h"
#include "store/sql.h"

/* EARLIER_MS: so long before us the server gives up. */
enum { NUMBER_BYTES = 24, EARLIER_MS = 500 };

/* In ms: migrations may take long, and each of their statements has its own limit. */
static const char transaction[] = "3600000";

/* Those of guards.sql, limits_set.sql and settings.sql. */
static const char ours[] = "{statement_timeout,lock_timeout,idle_in_transaction_session_timeout,"
                           "transaction_timeout,idle_session_timeout}";

int limits_open(struct pg **out, const struct pg_options *options, bool *pooled, int64_t deadline_ms,
                struct err *err)
{
    static const char *const for_session[] = {"f"};
    bool is_pooled = false;
    if (pg_open(out, options, deadline_ms, err) != 0) {
        return -1;
    }
    if (pg_is_pooled(*out, &is_pooled, deadline_ms, err) != 0 ||
        (!is_pooled && pg_query(*out, sql_settings, 1, for_session, NULL, deadline_ms, err) != 0)) {
        pg_close(*out);
        *out = NULL;
        return -1;
    }
    if (pooled) {
        *pooled = is_pooled;
    }
    return 0;
}

int limits_check(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    static const char *const values[] = {ours};
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_limits_unknown, 1, values, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    int result = pg_rows_count(rows) == 0
                     ? 0
                     : err_set(err, ERR_CONFIG,
                               "the server may end our transactions by %s = %s, which this outbox-relay does "
                               "not know how to set: ALTER ROLE (or DATABASE) ... SET %s = 0, or install a "
                               "newer outbox-relay",
                               pg_text(rows, 0, 0), pg_text(rows, 0, 1), pg_text(rows, 0, 0));
    pg_rows_free(rows);
    return result;
}

static int skip_answer(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    int result = pg_result(pg, &rows, deadline_ms, err);
    pg_rows_free(rows);
    return result;
}

/* What stands in front of each statement: limits, and behind a pooler the settings. */
static int send_limits(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    static const char *const for_transaction[] = {"t"};
    int64_t left_ms = deadline_ms - clock_now_ms();
    char statement[NUMBER_BYTES];
    left_ms -= left_ms > 2 * (int64_t)EARLIER_MS ? EARLIER_MS : left_ms / 2;
    (void)snprintf(statement, sizeof statement, "%lld", (long long)(left_ms > 1 ? left_ms : 1));
    const char *const values[] = {statement, transaction};
    if (pg_pooled(pg) && pg_send(pg, sql_settings, 1, for_transaction, false, err) != 0) {
        return -1;
    }
    return pg_send(pg, sql_limits_set, 2, values, false, err);
}

/* Reads the answers to what stands in front; after an error also the rest of the group. */
static int skip_answers(struct pg *pg, int count, int64_t deadline_ms, struct err *err)
{
    for (int at = 0; at < count + pg_pooled(pg); at++) {
        if (skip_answer(pg, deadline_ms, err) != 0) {
            (void)!pg_end(pg, deadline_ms, err); /* the first error stays */
            return -1;
        }
    }
    return 0;
}

static int ask(struct pg *pg, const char *sql, size_t count, const char *const *values, bool binary,
               struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    if (send_limits(pg, deadline_ms, err) != 0 || pg_send(pg, sql, count, values, binary, err) != 0 ||
        pg_sync(pg, err) != 0) {
        return -1;
    }
    return skip_answers(pg, 1, deadline_ms, err) != 0 ? -1 : pg_last(pg, out, deadline_ms, err);
}

int limits_query(struct pg *pg, const char *sql, size_t count, const char *const *values,
                 struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    return ask(pg, sql, count, values, false, out, deadline_ms, err);
}

int limits_query_binary(struct pg *pg, const char *sql, size_t count, const char *const *values,
                        struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    return ask(pg, sql, count, values, true, out, deadline_ms, err);
}

int limits_begin(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    if (pg_send(pg, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", 0, NULL, false, err) != 0 ||
        send_limits(pg, deadline_ms, err) != 0 || pg_sync(pg, err) != 0) {
        return -1;
    }
    return skip_answers(pg, 1, deadline_ms, err) != 0 ? -1 : pg_last(pg, NULL, deadline_ms, err);
}

int limits_script(struct pg *pg, const char *sql, int64_t deadline_ms, struct err *err)
{
    if (send_limits(pg, deadline_ms, err) != 0 || pg_sync(pg, err) != 0 ||
        skip_answers(pg, 0, deadline_ms, err) != 0 || pg_last(pg, NULL, deadline_ms, err) != 0) {
        return -1;
    }
    return pg_script(pg, sql, deadline_ms, err);
}
