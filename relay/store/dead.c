#include "store/dead.h"

#include <stdio.h>

#include "base/clock.h"
#include "store/limits.h"
#include "store/sql.h"

enum { WITHIN_MS = 60000, NUMBER_BYTES = 24, PAGE = 20, PARAMETERS = 6 };

/* The parameters that all these queries share. */
struct parameters {
    char since[NUMBER_BYTES];
    char limit[NUMBER_BYTES];
    char entry[NUMBER_BYTES]; /* the export goes on behind it, changes go up to it */
    const char *values[PARAMETERS];
};

static void fill(struct parameters *parameters, const struct dead_filter *filter, int64_t limit,
                 int64_t entry)
{
    (void)snprintf(parameters->since, NUMBER_BYTES, "%lld", (long long)filter->since_ms);
    (void)snprintf(parameters->limit, NUMBER_BYTES, "%lld", (long long)limit);
    (void)snprintf(parameters->entry, NUMBER_BYTES, "%lld", (long long)entry);
    const char *const values[PARAMETERS] = {
        filter->ids,       filter->reason,
        filter->channel,   filter->since_ms >= 0 ? parameters->since : NULL,
        parameters->limit, parameters->entry};
    for (size_t at = 0; at < PARAMETERS; at++) {
        parameters->values[at] = values[at];
    }
}

static const char *text_or_null(const struct pg_rows *rows, size_t row, int column)
{
    return pg_is_null(rows, row, column) ? NULL : pg_text(rows, row, column);
}

int dead_list(struct pg *pg, const struct dead_filter *filter, int64_t limit,
              void (*see)(void *context, const struct dead_letter *letter), void *context, struct err *err)
{
    struct parameters parameters;
    struct pg_rows *rows = NULL;
    fill(&parameters, filter, limit, 0);
    if (limits_query(pg, sql_dead_list, 5, parameters.values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        const struct dead_letter letter = {.seq = text_or_null(rows, at, 1),
                                           .id = pg_text(rows, at, 2),
                                           .channel = pg_text(rows, at, 3),
                                           .type = pg_text(rows, at, 4),
                                           .key = text_or_null(rows, at, 5),
                                           .reason = pg_text(rows, at, 6),
                                           .attempts = pg_text(rows, at, 7),
                                           .backend = pg_text(rows, at, 8),
                                           .died_at = pg_text(rows, at, 9),
                                           .error = pg_text(rows, at, 10)};
        see(context, &letter);
    }
    pg_rows_free(rows);
    return 0;
}

int dead_count(struct pg *pg, const struct dead_filter *filter,
               void (*see)(void *context, const struct dead_count *count), void *context, struct err *err)
{
    struct parameters parameters;
    struct pg_rows *rows = NULL;
    fill(&parameters, filter, 0, 0);
    if (limits_query(pg, sql_dead_count, 4, parameters.values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        const struct dead_count count = {pg_text(rows, at, 0), pg_text(rows, at, 1),
                                         pg_number(rows, at, 2, 0), pg_text(rows, at, 3)};
        see(context, &count);
    }
    pg_rows_free(rows);
    return 0;
}

/* One page: as many as the statement's bounds of rows and bytes let pass. */
static int see_page(struct pg *pg, const struct dead_filter *filter, int64_t limit, int64_t *behind,
                    size_t *got, void (*see)(void *context, const struct dead_export *letter), void *context,
                    struct err *err)
{
    struct parameters parameters;
    struct pg_rows *rows = NULL;
    fill(&parameters, filter, limit, *behind);
    if (limits_query(pg, sql_dead_export, PARAMETERS, parameters.values, &rows, clock_now_ms() + WITHIN_MS,
                     err) != 0) {
        return -1;
    }
    *got = pg_rows_count(rows);
    for (size_t at = 0; at < *got; at++) {
        const struct dead_export letter = {pg_text(rows, at, 1), text_or_null(rows, at, 2),
                                           text_or_null(rows, at, 3)};
        *behind = pg_number(rows, at, 0, *behind);
        see(context, &letter);
    }
    pg_rows_free(rows);
    return 0;
}

int dead_each(struct pg *pg, const struct dead_filter *filter, int64_t limit,
              void (*see)(void *context, const struct dead_export *letter), void *context, struct err *err)
{
    int64_t behind = 0;
    size_t got = 1;
    while (got > 0 && limit > 0) {
        if (see_page(pg, filter, limit < PAGE ? limit : PAGE, &behind, &got, see, context, err) != 0) {
            return -1;
        }
        limit -= (int64_t)got;
    }
    return 0;
}

int dead_newest(struct pg *pg, int64_t *entry, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_dead_newest, 0, NULL, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    *entry = pg_number(rows, 0, 0, 0);
    pg_rows_free(rows);
    return 0;
}

/* A statement that says how many there were, or whose rows are counted. */
static int change(struct pg *pg, const char *sql, bool says, const struct dead_filter *filter, int64_t newest,
                  int64_t limit, int64_t *affected, struct err *err)
{
    struct parameters parameters;
    struct pg_rows *rows = NULL;
    fill(&parameters, filter, limit, newest);
    if (limits_query(pg, sql, PARAMETERS, parameters.values, &rows, clock_now_ms() + WITHIN_MS, err) != 0) {
        return -1;
    }
    *affected = says ? pg_number(rows, 0, 0, 0) : (int64_t)pg_rows_affected(rows);
    pg_rows_free(rows);
    return 0;
}

int dead_retry(struct pg *pg, const struct dead_filter *filter, int64_t newest, int64_t limit, int64_t *moved,
               struct err *err)
{
    return change(pg, sql_dead_retry, true, filter, newest, limit, moved, err);
}

int dead_discard(struct pg *pg, const struct dead_filter *filter, int64_t newest, int64_t limit,
                 int64_t *gone, struct err *err)
{
    return change(pg, sql_dead_discard, false, filter, newest, limit, gone, err);
}
