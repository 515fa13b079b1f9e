#include "store/inspect.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/printable.h"
#include "store/limits.h"
#include "store/source_row.h"
#include "store/sql.h"

enum { WITHIN_MS = 30000, NUMBER_BYTES = 24 };

int inspect_drain_target(struct pg *pg, struct inspect_target *target, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_drain_target, 0, NULL, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    target->seq = pg_number(rows, 0, 0, 0);
    target->now_us = pg_number(rows, 0, 1, 0);
    pg_rows_free(rows);
    return 0;
}

int inspect_drain_left(struct pg *pg, const struct inspect_target *target,
                       const struct inspect_filter *filter, struct inspect_left *left, int64_t deadline_ms,
                       struct err *err)
{
    struct pg_rows *rows = NULL;
    char seq[NUMBER_BYTES];
    char now[NUMBER_BYTES];
    (void)snprintf(seq, sizeof seq, "%lld", (long long)target->seq);
    (void)snprintf(now, sizeof now, "%lld", (long long)target->now_us);
    const char *const values[] = {
        seq, filter->include, filter->exclude, filter->resting, now, filter->ordered ? "t" : "f"};
    if (limits_query(pg, sql_drain_left, 6, values, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    *left = (struct inspect_left){.messages = pg_number(rows, 0, 0, 0),
                                  .resting = pg_number(rows, 0, 1, 0),
                                  .due = pg_number(rows, 0, 2, 0),
                                  .waiting = pg_number(rows, 0, 3, 0),
                                  .next_due_ms = pg_number(rows, 0, 4, CLOCK_NEVER_MS),
                                  .pause_ends_ms = pg_number(rows, 0, 5, CLOCK_NEVER_MS),
                                  .delayed = pg_number(rows, 0, 6, 0),
                                  .awaited = pg_number(rows, 0, 7, 0)};
    pg_rows_free(rows);
    return 0;
}

int inspect_promote(struct pg *pg, int64_t max_bytes, int64_t lanes, int64_t *promoted, int64_t deadline_ms,
                    struct err *err)
{
    struct pg_rows *rows = NULL;
    char bytes[NUMBER_BYTES];
    char mask[NUMBER_BYTES];
    (void)snprintf(bytes, sizeof bytes, "%lld", (long long)max_bytes);
    (void)snprintf(mask, sizeof mask, "%lld", (long long)lanes - 1);
    const char *const values[] = {"1000", bytes, lanes > 0 ? mask : NULL, ""};
    if (limits_query(pg, sql_promote, 4, values, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    *promoted = pg_number(rows, 0, 0, 0);
    pg_rows_free(rows);
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
        result = err_set(err, ERR_REFUSED, "%s", pg_text(rows, 0, 0));
    }
    pg_rows_free(rows);
    return result;
}

int inspect_strangers(struct pg *pg, inspect_tell *tell, void *context, int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_strangers, 0, NULL, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        tell(context, pg_text(rows, at, 1));
    }
    pg_rows_free(rows);
    return 0;
}

int inspect_transaction(struct pg *pg, struct err *err)
{
    int64_t deadline_ms = clock_now_ms() + WITHIN_MS;
    if (limits_begin(pg, deadline_ms, err) != 0 ||
        limits_query(pg, "SELECT count(*) FROM outbox.setting", 0, NULL, NULL, deadline_ms, err) != 0) {
        return -1;
    }
    return limits_query(pg, "COMMIT", 0, NULL, NULL, deadline_ms, err);
}

/* Sentences hold names, which are others'. */
static int tell_each(struct pg *pg, const char *sql, size_t count, const char *const *values,
                     inspect_tell *tell, void *context, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql, count, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        char clean[1000];
        printable_copy(clean, sizeof clean, pg_value(rows, at, 0));
        tell(context, clean);
    }
    pg_rows_free(rows);
    return 0;
}

int inspect_foreign_objects(struct pg *pg, inspect_tell *tell, void *context, struct err *err)
{
    static const char *const values[] = {"f"};
    return tell_each(pg, sql_foreign_objects, 1, values, tell, context, err);
}

int inspect_role_members(struct pg *pg, inspect_tell *tell, void *context, struct err *err)
{
    return tell_each(pg, sql_role_members, 0, NULL, tell, context, err);
}

int inspect_order_hazards(struct pg *pg, inspect_tell *tell, void *context, struct err *err)
{
    return tell_each(pg, sql_order_hazards, 0, NULL, tell, context, err);
}

/* ---- one message ---- */

int inspect_message(struct pg *pg, const char *id, const struct inspect_filter *filter, int64_t max_bytes,
                    struct batch *batch, struct inspect_place *place, bool *found, struct err *err)
{
    struct pg_rows *rows = NULL;
    char most[NUMBER_BYTES];
    (void)snprintf(most, sizeof most, "%lld", (long long)max_bytes);
    const char *const values[] = {id, most};
    if (limits_query_binary(pg, sql_explain, 2, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0 ||
        source_read_rows(batch, rows, max_bytes, err) != 0) {
        return -1;
    }
    *found = batch->count > 0;
    if (!*found) {
        return 0;
    }
    const struct outbox_bytes channel = batch->rows[0].message.channel;
    char name[PRINTABLE_NAME_BYTES]; /* as relays write it into their holds */
    printable_copy(name, sizeof name, (struct bytes){channel.ptr, channel.len});
    const char *const about[] = {id, filter->include, filter->exclude, name};
    if (limits_query(pg, sql_explain_place, 4, about, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    *found = pg_rows_count(rows) > 0; /* it may be gone by now */
    if (*found) {
        printable_copy(place->table, sizeof place->table, pg_value(rows, 0, 0));
        printable_copy(place->waits, sizeof place->waits, pg_value(rows, 0, 1));
    }
    pg_rows_free(rows);
    return 0;
}
