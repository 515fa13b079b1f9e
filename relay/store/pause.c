#include "store/pause.h"

#include <stdio.h>

#include "base/clock.h"
#include "store/limits.h"
#include "store/sql.h"

enum { WITHIN_MS = 15000 };

int pause_set(struct pg *pg, const char *scope, int64_t for_ms, const char *reason, struct err *err)
{
    char length[24];
    (void)snprintf(length, sizeof length, "%lld", (long long)for_ms);
    const char *const values[] = {scope, for_ms >= 0 ? length : NULL, reason};
    return limits_query(pg, sql_pause, 3, values, NULL, clock_now_ms() + WITHIN_MS, err);
}

int pause_end(struct pg *pg, const char *scope, bool *was_paused, struct err *err)
{
    struct pg_rows *rows = NULL;
    const char *const values[] = {scope};
    *was_paused = false;
    if (limits_query(pg, sql_resume, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        *was_paused = *was_paused || pg_number(rows, at, 0, 0) == 1;
    }
    pg_rows_free(rows);
    return 0;
}

int pause_known(struct pg *pg, const char *scope, bool *known, struct text *in_force, struct err *err)
{
    struct pg_rows *rows = NULL;
    const char *const values[] = {scope};
    if (limits_query(pg, sql_pause_known, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    *known = pg_number(rows, 0, 0, 0) == 1;
    text_add_bytes(in_force, pg_value(rows, 0, 1));
    pg_rows_free(rows);
    return 0;
}

static int ask(struct pg *pg, const char *among, struct text *transactions, int64_t *count, struct err *err)
{
    struct pg_rows *rows = NULL;
    const char *const values[] = {among};
    if (limits_query(pg, sql_in_flight, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    if (transactions) {
        text_add_bytes(transactions, pg_value(rows, 0, 0));
    }
    *count = pg_number(rows, 0, 1, 0);
    pg_rows_free(rows);
    return 0;
}

int pause_in_flight(struct pg *pg, struct text *transactions, struct err *err)
{
    int64_t count = 0;
    if (ask(pg, NULL, transactions, &count, err) != 0) {
        return -1;
    }
    return transactions->overflow
               ? err_set(err, ERR_INTERNAL, "more claims are in flight than fit into memory")
               : 0;
}

int pause_still_in_flight(struct pg *pg, const char *transactions, int64_t *count, struct err *err)
{
    return ask(pg, transactions, NULL, count, err);
}
