/* source_link - the way to the server that all statements of a source share: BEGIN with its guards, and the
 * answers of a group. */
#include <string.h>

#include "base/clock.h"
#include "store/source_state.h"
#include "store/sql.h"

enum { LOCK_TIMEOUT_MS = 2000, STATEMENT_TIMEOUT_MS = 10000 };

void source_put_number(char out[NUMBER_BYTES], int64_t number)
{
    struct text text;
    text_init(&text, NUMBER_BYTES - 1);
    text_add_number(&text, number);
    memcpy(out, text_get(&text), text.len + 1);
    text_finish(&text);
}

int64_t source_answer_deadline(void)
{
    return clock_now_ms() + ANSWER_WITHIN_MS;
}

int source_skip_answers(struct source *source, int count, struct err *err)
{
    for (int done = 0; done < count; done++) {
        struct pg_rows *rows = NULL;
        if (pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
            return -1;
        }
        pg_rows_free(rows);
    }
    return 0;
}

int source_end_group(struct source *source, int result, struct err *err)
{
    if (result != 0 && (err->class == ERR_CONNECTION || err->class == ERR_STOPPED)) {
        return -1; /* good for closing only: a second wait would be as long as the first */
    }
    return pg_end(source->pg, source_answer_deadline(), err) != 0 ? -1 : result;
}

int source_send_begin(struct source *source, struct err *err)
{
    static const char lock_timeout[] = "2000";
    static const char statement_timeout[] = "10000";
    _Static_assert(LOCK_TIMEOUT_MS == 2000 && STATEMENT_TIMEOUT_MS == 10000, "the texts above say the same");
    const char *const guards[] = {source->idle_timeout, lock_timeout, statement_timeout,
                                  source->transaction_timeout};
    static const char *const for_transaction[] = {"t"};
    if (pg_send(source->pg, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", 0, NULL, false, err) != 0 ||
        (source->pooled && pg_send(source->pg, sql_settings, 1, for_transaction, false, err) != 0)) {
        return -1;
    }
    return pg_send(source->pg, sql_guards, 4, guards, false, err);
}

/* Only the mark would like to know the pauses, and may do without; the claim asks by itself. */
static void keep(struct text *pauses, struct bytes literal)
{
    text_clear(pauses);
    text_add_bytes(pauses, literal);
    if (pauses->overflow) {
        text_clear(pauses);
        text_add(pauses, "{\"more than are listed\"}");
    }
}

/* The operator may have changed the order meanwhile; and what is paused is good to know before the next
 * claim. */
int source_read_begin(struct source *source, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (source_skip_answers(source, 1 + source->pooled, err) != 0 ||
        pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        return -1;
    }
    const struct schema_order now = {.by_key = pg_number(rows, 0, 0, 0) == 1,
                                     .lanes = pg_number(rows, 0, 1, 0)};
    keep(&source->paused, pg_value(rows, 0, 2));
    keep(&source->paused_patterns, pg_value(rows, 0, 3));
    pg_rows_free(rows);
    if (now.by_key != source->order.by_key || now.lanes != source->order.lanes) {
        return err_set(err, ERR_CONFIG, "the outbox's order was changed while this relay ran");
    }
    return 0;
}
