#include "store/source.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "store/limits.h"
#include "store/schema.h"
#include "store/settle.h"
#include "store/source_state.h"
#include "store/sql.h"

/* Longer than such a row rests, where it is met again only then. */
enum { CAREFUL_MS = 300000 };

/* ---- open, close ---- */

int source_open(struct source **out, const struct source_options *options, int stop_fd, int halt_fd,
                int64_t deadline_ms, struct err *err)
{
    struct source *source = calloc(1, sizeof *source);
    if (!source) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    source->options = *options;
    source->limit = SIZE_MAX;
    source->random = (uint64_t)clock_now_us() ^ (uint64_t)(uintptr_t)source;
    text_init(&source->paused, SOURCE_PAUSED_MAX_BYTES);
    text_add(&source->paused, "{}");
    text_init(&source->paused_patterns, SOURCE_PAUSED_MAX_BYTES);
    text_init(&source->promote_from, CHANNEL_MAX_BYTES);
    text_add(&source->paused_patterns, "{}");
    source_put_number(source->max_message, options->max_message_bytes);
    source_put_number(source->idle_timeout, options->transaction_ms);
    source_put_number(source->transaction_timeout, options->transaction_ms + STATEMENTS_MS);
    const struct pg_options connection = {options->conninfo, options->client_name, stop_fd};
    if (limits_open(&source->pg, &connection, &source->pooled, deadline_ms, err) != 0 ||
        limits_check(source->pg, deadline_ms, err) != 0 ||
        schema_read_order(source->pg, &source->order, err) != 0 ||
        schema_check_order(&source->order, options->ordered, err) != 0) {
        source_close(source);
        return schema_explain(err);
    }
    source_put_number(source->mask, source->order.lanes - 1);
    source_scatter(source);
    pg_cancel_on(source->pg, halt_fd);
    mark_reset(options->mark);
    *out = source;
    return 0;
}

void source_close(struct source *source)
{
    if (source) {
        pg_close(source->pg);
        text_finish(&source->paused);
        text_finish(&source->paused_patterns);
        text_finish(&source->promote_from);
        free(source);
    }
}

const char *source_paused(const struct source *source)
{
    return text_get(&source->paused);
}

const char *source_paused_patterns(const struct source *source)
{
    return text_get(&source->paused_patterns);
}

size_t source_promoted(const struct source *source)
{
    return source ? source->promoted : 0;
}

int source_socket(const struct source *source)
{
    return source ? pg_socket(source->pg) : -1;
}

/* ---- claim ---- */

/* An empty claim must not leave a transaction behind; one that promoted rows must keep them. */
static int end_if_empty(struct source *source, const struct batch *batch, struct err *err)
{
    return batch->count > 0 ? 0
                            : pg_query(source->pg, "COMMIT", 0, NULL, NULL, source_answer_deadline(), err);
}

static int claim(struct source *source, const struct source_request *request, struct batch *batch,
                 struct err *err)
{
    batch_clear(batch);
    if (source_send_claim(source, request, err) != 0 || pg_sync(source->pg, err) != 0) {
        return -1;
    }
    if (source_end_group(source, source_read_claim(source, request, batch, err), err) != 0) {
        return -1;
    }
    return end_if_empty(source, batch, err);
}

int source_claim(struct source *source, const struct source_request *request, struct batch *batch,
                 struct err *err)
{
    return claim(source, request, batch, err) == 0 ? 0 : schema_explain(err);
}

/* ---- settle and commit ---- */

static void be_careful(struct source *source)
{
    atomic_store(&source->options.caution->until_ms, clock_now_ms() + CAREFUL_MS);
}

/* A row would be sent, and refuse to go, for ever, and its batch with it: the next time it is told apart. */
static int refused(struct source *source, const struct settled *settled, struct err *err)
{
    if (settle_blames_row(err)) {
        err->class = settled->careful ? err->class : ERR_RETRY;
        be_careful(source);
    }
    return -1;
}

int source_settle(struct source *source, const struct batch *batch, struct settled *settled, struct err *err)
{
    settled->careful = clock_now_ms() < atomic_load(&source->options.caution->until_ms);
    settled->backwards = source->backwards = !source->backwards;
    if (settle_batch(source->pg, batch, source->options.backend, source_answer_deadline(),
                     source->options.log, settled, err) != 0) {
        return refused(source, settled, err);
    }
    if (settled->careful && settled->lasts) {
        be_careful(source);
    }
    return 0;
}

/* Reads the answers of settle and COMMIT. */
static int read_commit(struct source *source, const struct batch *batch, struct settled *settled,
                       struct err *err)
{
    struct pg_rows *rows = NULL;
    if (settle_answers(source->pg, batch, source_answer_deadline(), settled, err) != 0 ||
        pg_result(source->pg, &rows, source_answer_deadline(), err) != 0) {
        return refused(source, settled, err);
    }
    bool committed = pg_did(rows, "COMMIT");
    pg_rows_free(rows);
    if (failpoint("after_commit")) {
        return err_set(err, ERR_CONNECTION, "failpoint after_commit");
    }
    settled->committed = committed;
    return committed ? 0 : err_set(err, ERR_RETRY, "the transaction was rolled back at COMMIT");
}

/* COMMIT alone, or with the next claim behind it in the same round trip. */
static int commit_chain(struct source *source, const struct source_request *next, struct batch *batch,
                        struct settled *settled, struct err *err)
{
    if (failpoint("before_commit")) {
        return err_set(err, ERR_CONNECTION, "failpoint before_commit");
    }
    if (pg_send(source->pg, "COMMIT", 0, NULL, false, err) != 0 ||
        (next && source_send_claim(source, next, err) != 0) || pg_sync(source->pg, err) != 0) {
        return -1;
    }
    int result = read_commit(source, batch, settled, err);
    batch_clear(batch);
    if (result == 0 && next) {
        result = source_read_claim(source, next, batch, err);
    }
    return source_end_group(source, result, err);
}

int source_commit(struct source *source, const struct source_request *next, struct batch *batch,
                  struct settled *settled, struct err *err)
{
    const struct source_request *chained = source->pooled ? NULL : next;
    if (commit_chain(source, chained, batch, settled, err) != 0) {
        return schema_explain(err);
    }
    if (next && !chained) {
        return source_claim(source, next, batch, err);
    }
    return next ? end_if_empty(source, batch, err) : 0;
}

/* ---- the look ---- */

static int ask_look(struct source *source, const struct source_request *request, struct source_look *look,
                    struct err *err)
{
    uint64_t filter = source_filter(source, request);
    char start[NUMBER_BYTES];
    bool filtered = !source->options.ordered; /* in order, that mark is of the rows without a key */
    source_put_number(start,
                      mark_start(source->options.mark, filter, filtered, clock_now_ms(), &source->full_poll));
    const char *const values[] = {start, request->resting, source->options.include, source->options.exclude};
    if (source_send_begin(source, err) != 0 ||
        source_send_mark_sequence(source, MARK_ORDINARY, filter, true, err) != 0 ||
        pg_send(source->pg, sql_look, 4, values, true, err) != 0 ||
        source_send_mark_rows(source, request, err) != 0 ||
        pg_send(source->pg, "COMMIT", 0, NULL, false, err) != 0 || pg_sync(source->pg, err) != 0) {
        return -1;
    }
    struct pg_rows *rows = NULL;
    int64_t highest = 0;
    int result = source_read_begin(source, err);
    if (result == 0) {
        result = source_read_mark_sequence(source, &highest, err);
    }
    if (result == 0) {
        result = pg_result(source->pg, &rows, source_answer_deadline(), err);
    }
    if (result == 0) {
        look->waiting = !pg_is_null(rows, 0, 0);
        look->scheduled = pg_number(rows, 0, 1, 0) == 1;
        source_check_full_poll(source, pg_number(rows, 0, 0, MARK_NONE));
        pg_rows_free(rows);
        result = source_read_mark_rows(source, highest, err);
    }
    return source_end_group(source, result, err);
}

int source_look(struct source *source, const struct source_request *request, struct source_look *look,
                struct err *err)
{
    return ask_look(source, request, look, err) == 0 ? 0 : schema_explain(err);
}
