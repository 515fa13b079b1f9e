#include "store/settle.h"

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/printable.h"
#include "store/sql.h"

enum { ARRAY_MAX_BYTES = 32 << 20, ARRAYS = 5, STUCK_AT_MOST = 64, COMMIT_KEEPS_MS = 5000 };

/* Parameters of one statement: array literals of one length. */
struct arrays {
    struct text text[ARRAYS];
    size_t used;
    size_t rows;
};

static void arrays_init(struct arrays *arrays, size_t used)
{
    *arrays = (struct arrays){.used = used};
    for (size_t at = 0; at < used; at++) {
        text_init(&arrays->text[at], ARRAY_MAX_BYTES);
        text_add(&arrays->text[at], "{");
    }
}

static void arrays_finish(struct arrays *arrays)
{
    for (size_t at = 0; at < arrays->used; at++) {
        text_finish(&arrays->text[at]);
    }
}

static void add_number(struct arrays *arrays, size_t at, int64_t number)
{
    text_add(&arrays->text[at], arrays->rows > 0 ? "," : "");
    text_add_number(&arrays->text[at], number);
}

/* The texts are clean UTF-8 without NUL: printable_copy saw to that. */
static void add_text(struct arrays *arrays, size_t at, const char *value)
{
    text_add(&arrays->text[at], arrays->rows > 0 ? "," : "");
    text_add_quoted(&arrays->text[at], bytes_of(value));
}

static int close_arrays(struct arrays *arrays, struct err *err)
{
    for (size_t at = 0; at < arrays->used; at++) {
        text_add(&arrays->text[at], "}");
        if (arrays->text[at].overflow) {
            return err_set(err, ERR_INTERNAL, "the settled rows do not fit into one statement");
        }
    }
    return 0;
}

static int64_t identity(const struct row *row, bool scheduled)
{
    return scheduled ? row->entry : row->message.seq;
}

static bool concerns(const struct row *row, enum row_fate fate, bool scheduled)
{
    return row->fate == fate && (row->entry != 0) == scheduled;
}

/* Rows [from, to) of a batch. */
struct part {
    const struct batch *batch;
    size_t from;
    size_t to;
};

static size_t count_fate(const struct part *part, enum row_fate fate, bool scheduled)
{
    size_t count = 0;
    for (size_t at = part->from; at < part->to; at++) {
        count += concerns(&part->batch->rows[at], fate, scheduled);
    }
    return count;
}

static int send_delete(struct pg *pg, const struct part *part, bool scheduled, struct err *err)
{
    struct arrays arrays;
    arrays_init(&arrays, 1);
    for (size_t at = part->from; at < part->to; at++) {
        const struct row *row = &part->batch->rows[at];
        if (concerns(row, ROW_DELETED, scheduled)) {
            add_number(&arrays, 0, identity(row, scheduled));
            arrays.rows++;
        }
    }
    int result = close_arrays(&arrays, err);
    if (result == 0 && arrays.rows > 0) {
        const char *const values[] = {text_get(&arrays.text[0])};
        result = pg_send(pg, scheduled ? sql_delete_confirmed_scheduled : sql_delete_confirmed, 1, values,
                         false, err);
    }
    arrays_finish(&arrays);
    return result;
}

static int send_deletes(struct pg *pg, const struct part *part, struct err *err)
{
    return send_delete(pg, part, false, err) == 0 ? send_delete(pg, part, true, err) : -1;
}

/* The rows are locked by us: what a DELETE of theirs does not find, somebody keeps from it. */
static int read_deletes(struct pg *pg, const struct part *part, int64_t deadline_ms, size_t *kept,
                        struct err *err)
{
    for (int scheduled = 0; scheduled <= 1; scheduled++) {
        size_t confirmed = count_fate(part, ROW_DELETED, scheduled);
        struct pg_rows *rows = NULL;
        if (confirmed == 0) {
            continue;
        }
        if (pg_result(pg, &rows, deadline_ms, err) != 0) {
            return -1;
        }
        size_t deleted = pg_rows_affected(rows);
        *kept += deleted < confirmed ? confirmed - deleted : 0;
        pg_rows_free(rows);
    }
    return 0;
}

/* Ends the group of send_deletes() in a round trip of its own. */
static int end_deletes(struct pg *pg, const struct part *part, int64_t deadline_ms, size_t *kept,
                       struct err *err)
{
    if (pg_sync(pg, err) != 0) {
        return -1;
    }
    int result = read_deletes(pg, part, deadline_ms, kept, err);
    return pg_end(pg, deadline_ms, err) == 0 ? result : -1;
}

/* A trigger that returns NULL keeps a row from going, or from arriving, and nothing fails. */
static int run_move(struct pg *pg, const char *sql, size_t count, const char *const *values, size_t wanted,
                    int64_t deadline_ms, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql, count, values, &rows, deadline_ms, err) != 0) {
        return -1;
    }
    size_t moved = pg_rows_affected(rows);
    pg_rows_free(rows);
    return moved == wanted
               ? 0
               : err_set(
                     err, ERR_CONFIG,
                     "%zu of %zu rows did not arrive where they were to be set aside: does a trigger, a rule "
                     "or a policy on a table of schema outbox keep them?",
                     wanted - moved, wanted);
}

static int run_wait(struct pg *pg, const struct part *part, bool scheduled, int64_t deadline_ms,
                    struct err *err)
{
    struct arrays arrays;
    arrays_init(&arrays, 5);
    for (size_t at = part->from; at < part->to; at++) {
        const struct row *row = &part->batch->rows[at];
        if (concerns(row, ROW_SCHEDULED, scheduled)) {
            add_number(&arrays, 0, identity(row, scheduled));
            add_number(&arrays, 1, row->wait_ms);
            add_number(&arrays, 2, row->attempts);
            add_text(&arrays, 3, row->solo ? "t" : "f");
            add_text(&arrays, 4, row->error);
            arrays.rows++;
        }
    }
    int result = close_arrays(&arrays, err);
    if (result == 0 && arrays.rows > 0) {
        const char *const values[] = {text_get(&arrays.text[0]), text_get(&arrays.text[1]),
                                      text_get(&arrays.text[2]), text_get(&arrays.text[3]),
                                      text_get(&arrays.text[4])};
        result = run_move(pg, scheduled ? sql_reschedule : sql_move_to_scheduled, 5, values, arrays.rows,
                          deadline_ms, err);
    }
    arrays_finish(&arrays);
    return result;
}

static int run_bury(struct pg *pg, const struct part *part, bool scheduled, const char *backend,
                    int64_t deadline_ms, struct err *err)
{
    struct arrays arrays;
    arrays_init(&arrays, 4);
    for (size_t at = part->from; at < part->to; at++) {
        const struct row *row = &part->batch->rows[at];
        if (concerns(row, ROW_BURIED, scheduled)) {
            add_number(&arrays, 0, identity(row, scheduled));
            add_number(&arrays, 1, row->attempts);
            add_text(&arrays, 2, row->burial);
            add_text(&arrays, 3, row->error);
            arrays.rows++;
        }
    }
    int result = close_arrays(&arrays, err);
    if (result == 0 && arrays.rows > 0) {
        const char *const values[] = {text_get(&arrays.text[0]), text_get(&arrays.text[1]),
                                      text_get(&arrays.text[2]), text_get(&arrays.text[3]), backend};
        result =
            run_move(pg, scheduled ? sql_bury_scheduled : sql_bury, 5, values, arrays.rows, deadline_ms, err);
    }
    arrays_finish(&arrays);
    return result;
}

static int run_moves(struct pg *pg, const struct part *part, const char *backend, int64_t deadline_ms,
                     struct err *err)
{
    for (int scheduled = 0; scheduled <= 1; scheduled++) {
        if (run_wait(pg, part, scheduled, deadline_ms, err) != 0 ||
            run_bury(pg, part, scheduled, backend, deadline_ms, err) != 0) {
            return -1;
        }
    }
    return failpoint("in_move") ? err_set(err, ERR_RETRY, "failpoint in_move") : 0;
}

/* ---- by parts: one row must not keep its neighbours ---- */

/* How the parts of one batch are settled. */
struct settler {
    struct pg *pg;
    const char *backend;
    int64_t deadline_ms;
    struct settled *settled;
    struct err no_move; /* why the first row that was to move stays */
    struct err no_delete;
};

static int say(const struct settler *settler, const char *sql, struct err *err)
{
    return pg_query(settler->pg, sql, 0, NULL, NULL, settler->deadline_ms, err);
}

static size_t count_fates(const struct part *part, enum row_fate fate)
{
    return count_fate(part, fate, false) + count_fate(part, fate, true);
}

static size_t count_moves(const struct part *part)
{
    return count_fates(part, ROW_SCHEDULED) + count_fates(part, ROW_BURIED);
}

/* Of a part: what moves, and with care also what is deleted. */
static size_t count_open(const struct settler *settler, const struct part *part)
{
    return count_moves(part) + (settler->settled->careful ? count_fates(part, ROW_DELETED) : 0);
}

bool settle_blames_row(const struct err *why)
{
    bool ours = why->class == ERR_RETRY || why->class == ERR_CONNECTION || why->class == ERR_STOPPED;
    return why->sqlstate[0] != '\0' ? !ours : why->class == ERR_CONFIG;
}

/* What was open of a part stays where it is. */
static void leave(struct settler *settler, const struct part *part, const struct err *why)
{
    struct settled *settled = settler->settled;
    size_t deletes = settled->careful ? count_fates(part, ROW_DELETED) : 0;
    settled->stuck_waits += count_fates(part, ROW_SCHEDULED);
    settled->stuck_deaths += count_fates(part, ROW_BURIED);
    settled->stuck_confirmed += deletes;
    settled->refused = true;
    settled->lasts = settled->lasts || settle_blames_row(why);
    if (count_moves(part) > 0 && !err_is_set(&settler->no_move)) {
        settler->no_move = *why;
    }
    if (deletes > 0 && !err_is_set(&settler->no_delete)) {
        settler->no_delete = *why;
    }
}

static int settle_part(struct settler *settler, struct part part, struct err *err);

/* By halves, until it is alone. Where many are like it, it is not a row; and what is settled must be
 * committed. */
static int settle_halves(struct settler *settler, const struct part *part, const struct err *why,
                         struct err *err)
{
    const struct settled *settled = settler->settled;
    size_t middle = part->from + (part->to - part->from) / 2;
    size_t stuck = settled->stuck_waits + settled->stuck_deaths + settled->stuck_confirmed;
    bool enough = stuck >= STUCK_AT_MOST || settler->deadline_ms - clock_now_ms() < COMMIT_KEEPS_MS;
    if (count_open(settler, part) <= 1 || enough || !settle_blames_row(why)) {
        leave(settler, part, why);
        return 0;
    }
    const struct part halves[] = {{part->batch, part->from, middle}, {part->batch, middle, part->to}};
    int result = settle_part(settler, halves[settled->backwards], err);
    return result == 0 ? settle_part(settler, halves[!settled->backwards], err) : -1;
}

/* With care, what others defer to the COMMIT is asked for here. */
static int run_part(const struct settler *settler, const struct part *part, size_t *kept, struct err *err)
{
    bool careful = settler->settled->careful;
    if ((careful && (send_deletes(settler->pg, part, err) != 0 ||
                     end_deletes(settler->pg, part, settler->deadline_ms, kept, err) != 0)) ||
        run_moves(settler->pg, part, settler->backend, settler->deadline_ms, err) != 0) {
        return -1;
    }
    return careful ? say(settler, "SET CONSTRAINTS ALL IMMEDIATE", err) : 0;
}

static int settle_part(struct settler *settler, struct part part, struct err *err)
{
    struct err refused = {0};
    size_t kept = 0;
    if (count_open(settler, &part) == 0) {
        return 0;
    }
    if (say(settler, "SAVEPOINT part", err) != 0) {
        return -1;
    }
    if (run_part(settler, &part, &kept, &refused) == 0) {
        settler->settled->kept += kept;
        return 0; /* the COMMIT releases it */
    }
    if (refused.class == ERR_CONNECTION || refused.class == ERR_STOPPED) {
        *err = refused;
        return -1;
    }
    if (say(settler, "ROLLBACK TO SAVEPOINT part", err) != 0 ||
        say(settler, "RELEASE SAVEPOINT part", err) != 0) {
        return -1;
    }
    return settle_halves(settler, &part, &refused, err);
}

static void tell(const struct log *log, const char *what, size_t rows, size_t of, const struct err *why)
{
    if (rows > 0) {
        LOG(log, LOG_ERROR, what, log_number("rows", (int64_t)rows), log_number("of", (int64_t)of),
            log_text("error", why->text));
    }
}

static int settle_by_parts(struct settler *settler, const struct batch *batch, const struct log *log,
                           struct err *err)
{
    const struct part all = {batch, 0, batch->count};
    const struct settled *settled = settler->settled;
    if (settle_part(settler, all, err) != 0) {
        return -1;
    }
    tell(log, "rows could not be set aside and stay where they are",
         settled->stuck_waits + settled->stuck_deaths, count_moves(&all), &settler->no_move);
    tell(log, "confirmed rows could not be deleted, and will be sent again", settled->stuck_confirmed,
         count_fates(&all, ROW_DELETED), &settler->no_delete);
    return 0;
}

/* ---- a batch ---- */

int settle_batch(struct pg *pg, const struct batch *batch, const char *backend, int64_t deadline_ms,
                 const struct log *log, struct settled *settled, struct err *err)
{
    const struct part all = {batch, 0, batch->count};
    struct settler settler = {.pg = pg, .backend = backend, .deadline_ms = deadline_ms, .settled = settled};
    if (failpoint("before_delete")) {
        return err_set(err, ERR_CONNECTION, "failpoint before_delete");
    }
    if (!settled->careful && send_deletes(pg, &all, err) != 0) {
        return -1;
    }
    if (failpoint("after_delete")) {
        return err_set(err, ERR_CONNECTION, "failpoint after_delete");
    }
    if (count_open(&settler, &all) == 0) {
        return 0;
    }
    if (!settled->careful && end_deletes(pg, &all, deadline_ms, &settled->kept, err) != 0) {
        return -1;
    }
    return settle_by_parts(&settler, batch, log, err);
}

int settle_answers(struct pg *pg, const struct batch *batch, int64_t deadline_ms, struct settled *settled,
                   struct err *err)
{
    const struct part all = {batch, 0, batch->count};
    const struct settler settler = {.settled = settled};
    bool answered = settled->careful || count_open(&settler, &all) > 0;
    return answered ? 0 : read_deletes(pg, &all, deadline_ms, &settled->kept, err);
}
