#include "fake_pg.h"

#include <stdio.h>
#include <string.h>

#include "failing.h"
#include "postgres/pg.h"

struct fake_log fake_log;

static void take_down(const char *sql, size_t count, const char *const *values)
{
    PROMISE(fake_log.count < FAKE_STATEMENTS && count <= FAKE_VALUES, "room for a statement");
    struct fake_statement *statement = &fake_log.statements[fake_log.count++];
    *statement = (struct fake_statement){.sql = sql, .count = count};
    for (size_t at = 0; at < count; at++) {
        PROMISE(values[at] && strlen(values[at]) < FAKE_VALUE_BYTES, "a value");
        memcpy(statement->values[at], values[at], strlen(values[at]) + 1);
    }
}

int pg_send(struct pg *pg, const char *sql, size_t count, const char *const *values, bool binary,
            struct err *err)
{
    (void)pg;
    (void)binary;
    (void)err;
    take_down(sql, count, values);
    return 0;
}

static size_t affected; /* by the last statement */

static size_t count_entries(const char *array)
{
    size_t count = 1;
    for (const char *at = array; *at; at++) {
        count += *at == ',';
    }
    return count;
}

int pg_query(struct pg *pg, const char *sql, size_t count, const char *const *values, struct pg_rows **out,
             int64_t deadline_ms, struct err *err)
{
    if (out) {
        *out = NULL;
    }
    affected = count > 0 ? count_entries(values[0]) : 0;
    (void)deadline_ms;
    return pg_send(pg, sql, count, values, false, err);
}

int pg_sync(struct pg *pg, struct err *err)
{
    (void)pg;
    (void)err;
    return 0;
}

int pg_end(struct pg *pg, int64_t deadline_ms, struct err *err)
{
    (void)deadline_ms;
    return pg_sync(pg, err);
}

int pg_result(struct pg *pg, struct pg_rows **out, int64_t deadline_ms, struct err *err)
{
    *out = NULL;
    affected = SIZE_MAX; /* no less than what was asked for */
    return pg_end(pg, deadline_ms, err);
}

size_t pg_rows_affected(const struct pg_rows *rows)
{
    (void)rows;
    return affected;
}

void pg_rows_free(struct pg_rows *rows)
{
    (void)rows;
}
