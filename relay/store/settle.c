#include "store/settle.h"

#include "base/failpoint.h"
#include "store/sql.h"

enum { ARRAY_MAX_BYTES = 32 << 20, ARRAYS = 5, STUCK_AT_MOST = 16 };

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

/* The texts are clean UTF-8 without NUL: bytes_copy_printable saw to that. */
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

static size_t count_fate(const struct batch *batch, enum row_fate fate, bool scheduled)
{
    size_t count = 0;
    for (size_t at = 0; at < batch->count; at++) {
        count += concerns(&batch->rows[at], fate, scheduled);
    }
    return count;
}

static int send_delete(struct pg *pg, const struct batch *batch, bool scheduled, struct err *err)
{
    struct arrays arrays;
    arrays_init(&arrays, 1);
    for (size_t at = 0; at < batch->count; at++) {
        if (concerns(&batch->rows[at], ROW_DELETED, scheduled)) {
            add_number(&arrays, 0, identity(&batch->rows[at], scheduled));
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

/* Rows [from, to) of a batch, which are to move. */
struct part {
    const struct batch *batch;
    size_t from;
    size_t to;
};

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

static bool moves(const struct row *row)
{
    return row->fate == ROW_SCHEDULED || row->fate == ROW_BURIED;
}

static size_t count_moves(const struct part *part)
{
    size_t count = 0;
    for (size_t at = part->from; at < part->to; at++) {
        count += moves(&part->batch->rows[at]);
    }
    return count;
}

/* How the moves of one batch are made. */
struct mover {
    struct pg *pg;
    const char *backend;
    int64_t deadline_ms;
    struct settled *settled;
    struct err first; /* why the first row stays */
};

static int say(const struct mover *mover, const char *sql, struct err *err)
{
    return pg_query(mover->pg, sql, 0, NULL, NULL, mover->deadline_ms, err);
}

/* One of the rows is why: not a lock, not a shortage of ours. */
static bool is_of_a_row(const struct err *why)
{
    return why->sqlstate[0] != '\0' ? why->class != ERR_RETRY : why->class == ERR_CONFIG;
}

/* What was to move of a part stays where it is. */
static void leave(struct mover *mover, const struct part *part, const struct err *why)
{
    for (size_t at = part->from; at < part->to; at++) {
        mover->settled->stuck_waits += part->batch->rows[at].fate == ROW_SCHEDULED;
        mover->settled->stuck_deaths += part->batch->rows[at].fate == ROW_BURIED;
    }
    mover->settled->refused = true;
    mover->settled->lasts = mover->settled->lasts || is_of_a_row(why);
    if (!err_is_set(&mover->first)) {
        mover->first = *why;
    }
}

static int move_part(struct mover *mover, struct part part, struct err *err);

/* One row must not keep its neighbours: by halves, until it is alone. Where many are like it, it is not a
 * row. */
static int move_halves(struct mover *mover, const struct part *part, const struct err *why, struct err *err)
{
    size_t middle = part->from + (part->to - part->from) / 2;
    size_t stuck = mover->settled->stuck_waits + mover->settled->stuck_deaths;
    if (count_moves(part) <= 1 || stuck >= STUCK_AT_MOST || !is_of_a_row(why)) {
        leave(mover, part, why);
        return 0;
    }
    int result = move_part(mover, (struct part){part->batch, part->from, middle}, err);
    return result == 0 ? move_part(mover, (struct part){part->batch, middle, part->to}, err) : -1;
}

static int move_part(struct mover *mover, struct part part, struct err *err)
{
    struct err refused = {0};
    if (count_moves(&part) == 0) {
        return 0;
    }
    if (say(mover, "SAVEPOINT moves", err) != 0) {
        return -1;
    }
    if (run_moves(mover->pg, &part, mover->backend, mover->deadline_ms, &refused) == 0) {
        return 0; /* the COMMIT releases it */
    }
    if (refused.class == ERR_CONNECTION || refused.class == ERR_STOPPED) {
        *err = refused;
        return -1;
    }
    if (say(mover, "ROLLBACK TO SAVEPOINT moves", err) != 0 ||
        say(mover, "RELEASE SAVEPOINT moves", err) != 0) {
        return -1;
    }
    return move_halves(mover, &part, &refused, err);
}

static int move_all(struct mover *mover, const struct batch *batch, const struct log *log, struct err *err)
{
    const struct part all = {batch, 0, batch->count};
    if (move_part(mover, all, err) != 0) {
        return -1;
    }
    if (mover->settled->refused) {
        LOG(log, LOG_ERROR, "rows could not be set aside and stay where they are",
            log_number("rows", (int64_t)(mover->settled->stuck_waits + mover->settled->stuck_deaths)),
            log_number("of", (int64_t)count_moves(&all)), log_text("error", mover->first.text));
    }
    return 0;
}

/* The rows are locked by us: what a DELETE of theirs does not find, somebody keeps from it. */
static int read_deletes(struct pg *pg, const struct batch *batch, int64_t deadline_ms,
                        struct settled *settled, struct err *err)
{
    for (int scheduled = 0; scheduled <= 1; scheduled++) {
        size_t confirmed = count_fate(batch, ROW_DELETED, scheduled);
        struct pg_rows *rows = NULL;
        if (confirmed == 0) {
            continue;
        }
        if (pg_result(pg, &rows, deadline_ms, err) != 0) {
            return -1;
        }
        size_t deleted = pg_rows_affected(rows);
        settled->kept += deleted < confirmed ? confirmed - deleted : 0;
        pg_rows_free(rows);
    }
    return 0;
}

int settle_batch(struct pg *pg, const struct batch *batch, const char *backend, int64_t deadline_ms,
                 const struct log *log, struct settled *settled, struct err *err)
{
    if (failpoint("before_delete")) {
        return err_set(err, ERR_CONNECTION, "failpoint before_delete");
    }
    if (send_delete(pg, batch, false, err) != 0 || send_delete(pg, batch, true, err) != 0) {
        return -1;
    }
    if (failpoint("after_delete")) {
        return err_set(err, ERR_CONNECTION, "failpoint after_delete");
    }
    const struct part all = {batch, 0, batch->count};
    if (count_moves(&all) == 0) {
        return 0;
    }
    if (pg_sync(pg, err) != 0 || read_deletes(pg, batch, deadline_ms, settled, err) != 0 ||
        pg_end(pg, deadline_ms, err) != 0) {
        return -1;
    }
    struct mover mover = {.pg = pg, .backend = backend, .deadline_ms = deadline_ms, .settled = settled};
    return move_all(&mover, batch, log, err);
}

int settle_answers(struct pg *pg, const struct batch *batch, int64_t deadline_ms, struct settled *settled,
                   struct err *err)
{
    const struct part all = {batch, 0, batch->count};
    return count_moves(&all) > 0 ? 0 : read_deletes(pg, batch, deadline_ms, settled, err);
}
