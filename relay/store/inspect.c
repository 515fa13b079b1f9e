#include "store/inspect.h"

#include <stdio.h>

#include "base/clock.h"
#include "store/sql.h"

enum { WITHIN_MS = 30000 };

int inspect_drain_target(struct pg *pg, struct inspect_target *target, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql_drain_target, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    target->seq = pg_number(rows, 0, 0, 0);
    (void)snprintf(target->now, sizeof target->now, "%s", pg_text(rows, 0, 1));
    pg_rows_free(rows);
    return 0;
}

/* Without compilation, which would take longer than the query itself: the planner thinks that each row costs
 * a subquery. Up to its sync a pipeline is one transaction, so the setting ends with it. */
static int query_uncompiled(struct pg *pg, const char *sql, size_t count, const char *const *values,
                            struct pg_rows **out, struct err *err)
{
    int64_t deadline_ms = clock_now_ms() + WITHIN_MS;
    struct pg_rows *set = NULL;
    struct pg_rows *rows = NULL;
    if (pg_send(pg, "SELECT set_config('jit', 'off', true)", 0, NULL, false, err) != 0 ||
        pg_send(pg, sql, count, values, false, err) != 0 || pg_sync(pg, err) != 0) {
        return -1;
    }
    int result = pg_result(pg, &set, deadline_ms, err) == 0 ? pg_result(pg, &rows, deadline_ms, err) : -1;
    pg_rows_free(set);
    if (pg_end(pg, deadline_ms, err) != 0 || result != 0) {
        pg_rows_free(rows);
        return -1;
    }
    *out = rows;
    return 0;
}

int inspect_drain_left(struct pg *pg, const struct inspect_target *target,
                       const struct inspect_filter *filter, struct inspect_left *left, struct err *err)
{
    struct pg_rows *rows = NULL;
    char seq[24];
    (void)snprintf(seq, sizeof seq, "%lld", (long long)target->seq);
    const char *const values[] = {
        seq, filter->include, filter->exclude, filter->resting, target->now, filter->ordered ? "t" : "f"};
    if (query_uncompiled(pg, sql_drain_left, 6, values, &rows, err) != 0) {
        return -1;
    }
    *left = (struct inspect_left){pg_number(rows, 0, 0, 0), pg_number(rows, 0, 1, 0),
                                  pg_number(rows, 0, 2, 0), pg_number(rows, 0, 3, 0)};
    pg_rows_free(rows);
    return 0;
}

int inspect_promote_all(struct pg *pg, int64_t *promoted, struct err *err)
{
    static const char *const values[] = {"1000"};
    size_t moved = 0;
    *promoted = 0;
    do {
        struct pg_rows *rows = NULL;
        if (pg_query(pg, sql_promote, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
            return -1;
        }
        moved = pg_rows_affected(rows);
        *promoted += (int64_t)moved;
        pg_rows_free(rows);
    } while (moved > 0);
    return 0;
}

int inspect_status(struct pg *pg, struct text *json, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql_status, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    text_add_bytes(json, pg_value(rows, 0, 0));
    pg_rows_free(rows);
    return 0;
}

int inspect_privileges(struct pg *pg, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql_privileges, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    int result = 0;
    if (pg_rows_count(rows) > 0) {
        result = err_set(err, ERR_REFUSED,
                         "user %s lacks %s on %s: GRANT outbox_relay TO the user, as the schema's owner",
                         pg_text(rows, 0, 0), pg_text(rows, 0, 1), pg_text(rows, 0, 2));
    }
    pg_rows_free(rows);
    return result;
}

int inspect_order_hazards(struct pg *pg, void (*tell)(void *context, const char *hazard), void *context,
                          struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql_order_hazards, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        tell(context, pg_text(rows, at, 0));
    }
    pg_rows_free(rows);
    return 0;
}
