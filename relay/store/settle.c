#include "store/settle.h"

#include "base/failpoint.h"
#include "store/sql.h"

enum { ARRAY_MAX_BYTES = 32 << 20, ARRAYS = 5 };

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

static int run_wait(struct pg *pg, const struct batch *batch, bool scheduled, int64_t deadline_ms,
                    struct err *err)
{
    struct arrays arrays;
    arrays_init(&arrays, 5);
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
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
        result = pg_query(pg, scheduled ? sql_reschedule : sql_move_to_scheduled, 5, values, NULL,
                          deadline_ms, err);
    }
    arrays_finish(&arrays);
    return result;
}

static int run_bury(struct pg *pg, const struct batch *batch, bool scheduled, const char *backend,
                    int64_t deadline_ms, struct err *err)
{
    struct arrays arrays;
    arrays_init(&arrays, 4);
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
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
        result = pg_query(pg, scheduled ? sql_bury_scheduled : sql_bury, 5, values, NULL, deadline_ms, err);
    }
    arrays_finish(&arrays);
    return result;
}

static int run_moves(struct pg *pg, const struct batch *batch, const char *backend, int64_t deadline_ms,
                     struct err *err)
{
    for (int scheduled = 0; scheduled <= 1; scheduled++) {
        if (run_wait(pg, batch, scheduled, deadline_ms, err) != 0 ||
            run_bury(pg, batch, scheduled, backend, deadline_ms, err) != 0) {
            return -1;
        }
    }
    return failpoint("in_move") ? err_set(err, ERR_RETRY, "failpoint in_move") : 0;
}

static bool has_moves(const struct batch *batch)
{
    for (size_t at = 0; at < batch->count; at++) {
        if (batch->rows[at].fate == ROW_SCHEDULED || batch->rows[at].fate == ROW_BURIED) {
            return true;
        }
    }
    return false;
}

static int move_under_savepoint(struct pg *pg, const struct batch *batch, const char *backend,
                                int64_t deadline_ms, const struct log *log, struct settled *settled,
                                struct err *err)
{
    if (pg_query(pg, "SAVEPOINT moves", 0, NULL, NULL, deadline_ms, err) != 0) {
        return -1;
    }
    struct err refused = {0};
    if (run_moves(pg, batch, backend, deadline_ms, &refused) == 0) {
        return 0;
    }
    if (refused.class == ERR_CONNECTION || refused.class == ERR_STOPPED) {
        *err = refused;
        return -1;
    }
    LOG(log, LOG_ERROR, "rows could not be set aside and stay where they are",
        log_text("error", refused.text));
    settled->refused = true;
    return pg_query(pg, "ROLLBACK TO SAVEPOINT moves", 0, NULL, NULL, deadline_ms, err);
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
    if (!has_moves(batch)) {
        return 0;
    }
    if (pg_sync(pg, err) != 0 || read_deletes(pg, batch, deadline_ms, settled, err) != 0 ||
        pg_end(pg, deadline_ms, err) != 0) {
        return -1;
    }
    return move_under_savepoint(pg, batch, backend, deadline_ms, log, settled, err);
}

int settle_answers(struct pg *pg, const struct batch *batch, int64_t deadline_ms, struct settled *settled,
                   struct err *err)
{
    return has_moves(batch) ? 0 : read_deletes(pg, batch, deadline_ms, settled, err);
}
