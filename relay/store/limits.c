#include "store/limits.h"

#include <stdio.h>

#include "base/clock.h"
#include "store/sql.h"

enum { NUMBER_BYTES = 24 };

/* Those of guards.sql, limits_set.sql and limits_session.sql. */
static const char ours[] = "{statement_timeout,lock_timeout,idle_in_transaction_session_timeout,"
                           "transaction_timeout,idle_session_timeout}";

static int refuse_unknown(struct pg *pg, int64_t deadline_ms, struct err *err)
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

int limits_begin(struct pg *pg, bool pooled, int64_t deadline_ms, struct err *err)
{
    if (refuse_unknown(pg, deadline_ms, err) != 0) {
        return -1;
    }
    return pooled ? 0 : pg_query(pg, sql_limits_session, 0, NULL, NULL, deadline_ms, err);
}

static int skip_answer(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    int result = pg_result(pg, &rows, deadline_ms, err);
    pg_rows_free(rows);
    return result;
}

static int ask(struct pg *pg, const char *sql, size_t count, const char *const *values, bool binary,
               struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    bool set = !pg_in_transaction(pg);
    int64_t left_ms = deadline_ms - clock_now_ms();
    char limit[NUMBER_BYTES];
    (void)snprintf(limit, sizeof limit, "%lld", (long long)(left_ms > 1 ? left_ms : 1));
    const char *const limits[] = {limit};
    struct pg_rows *rows = NULL;
    if ((set && pg_send(pg, sql_limits_set, 1, limits, false, err) != 0) ||
        pg_send(pg, sql, count, values, binary, err) != 0 || pg_sync(pg, err) != 0) {
        return -1;
    }
    int result = set ? skip_answer(pg, deadline_ms, err) : 0;
    result = result == 0 ? pg_result(pg, &rows, deadline_ms, err) : -1;
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

int limits_begin_transaction(struct pg *pg, int64_t statement_ms, int64_t deadline_ms, struct err *err)
{
    char limit[NUMBER_BYTES];
    (void)snprintf(limit, sizeof limit, "%lld", (long long)statement_ms);
    const char *const limits[] = {limit};
    if (pg_query(pg, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL, NULL, deadline_ms, err) != 0) {
        return -1;
    }
    return pg_query(pg, sql_limits_set, 1, limits, NULL, deadline_ms, err);
}
