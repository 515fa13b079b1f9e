#include "store/explain.h"

#include "base/clock.h"
#include "store/source_row.h"
#include "store/sql.h"

enum { WITHIN_MS = 60000 };

static int read_message(struct pg *pg, const char *const *values, struct batch *batch, struct err *err)
{
    struct pg_rows *rows = NULL;
    int64_t deadline_ms = clock_now_ms() + WITHIN_MS;
    if (pg_send(pg, sql_explain, 1, values, true, err) != 0 || pg_sync(pg, err) != 0) {
        return -1;
    }
    int result = pg_result(pg, &rows, deadline_ms, err);
    if (pg_end(pg, deadline_ms, err) != 0 || result != 0) {
        pg_rows_free(rows);
        return -1;
    }
    return source_read_rows(batch, rows, err);
}

int explain_find(struct pg *pg, const char *id, struct batch *batch, struct explain_place *place, bool *found,
                 struct err *err)
{
    struct pg_rows *rows = NULL;
    const char *const values[] = {id};
    if (read_message(pg, values, batch, err) != 0) {
        return -1;
    }
    *found = batch->count > 0;
    if (!*found) {
        return 0;
    }
    if (pg_query(pg, sql_explain_place, 1, values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
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
