#include "store/inspect.h"

#include <stdio.h>

#include "base/clock.h"
#include "store/limits.h"
#include "store/source_row.h"
#include "store/sql.h"

enum { WITHIN_MS = 30000 };

int inspect_drain_target(struct pg *pg, struct inspect_target *target, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_drain_target, 0, NULL, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    target->seq = pg_number(rows, 0, 0, 0);
    (void)snprintf(target->now, sizeof target->now, "%s", pg_text(rows, 0, 1));
    pg_rows_free(rows);
    return 0;
}

int inspect_drain_left(struct pg *pg, const struct inspect_target *target,
                       const struct inspect_filter *filter, struct inspect_left *left, int64_t deadline_ms,
                       struct err *err)
{
    struct pg_rows *rows = NULL;
    char seq[24];
    (void)snprintf(seq, sizeof seq, "%lld", (long long)target->seq);
    const char *const values[] = {
        seq, filter->include, filter->exclude, filter->resting, target->now, filter->ordered ? "t" : "f"};
    if (limits_query(pg, sql_drain_left, 6, values, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    *left = (struct inspect_left){pg_number(rows, 0, 0, 0), pg_number(rows, 0, 1, 0),
                                  pg_number(rows, 0, 2, 0), pg_number(rows, 0, 3, 0)};
    pg_rows_free(rows);
    return 0;
}

int inspect_promote_all(struct pg *pg, int64_t *promoted, int64_t deadline_ms, struct err *err)
{
    static const char *const values[] = {"1000"};
    size_t moved = 0;
    *promoted = 0;
    do {
        struct pg_rows *rows = NULL;
        if (limits_query(pg, sql_promote, 1, values, &rows, deadline_ms, err) != 0) {
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
    if (limits_query(pg, sql_status, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    text_add_bytes(json, pg_value(rows, 0, 0));
    pg_rows_free(rows);
    return 0;
}

int inspect_privileges(struct pg *pg, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_privileges, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
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
    if (limits_query(pg, sql_order_hazards, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        tell(context, pg_text(rows, at, 0));
    }
    pg_rows_free(rows);
    return 0;
}

/* ---- one message ---- */

int inspect_message(struct pg *pg, const char *id, struct batch *batch, struct inspect_place *place,
                    bool *found, struct err *err)
{
    struct pg_rows *rows = NULL;
    const char *const values[] = {id};
    if (limits_query_binary(pg, sql_explain, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0 ||
        source_read_rows(batch, rows, err) != 0) {
        return -1;
    }
    *found = batch->count > 0;
    if (!*found) {
        return 0;
    }
    if (limits_query(pg, sql_explain_place, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    *found = pg_rows_count(rows) > 0; /* it may be gone by now */
    if (*found) {
        bytes_copy_printable(place->table, sizeof place->table, pg_value(rows, 0, 0));
        bytes_copy_printable(place->waits, sizeof place->waits, pg_value(rows, 0, 1));
    }
    pg_rows_free(rows);
    return 0;
}
