#include "source.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "pg.h"
#include "settle.h"
#include "sql.h"

enum { ANSWER_WITHIN_MS = 15000, LOCK_TIMEOUT_MS = 2000, STATEMENT_TIMEOUT_MS = 10000, NUMBER_BYTES = 24 };

/* The columns of claim.sql and claim_scheduled.sql. */
enum {
    COLUMN_SEQ,
    COLUMN_ENTRY,
    COLUMN_ID,
    COLUMN_KIND,
    COLUMN_CHANNEL,
    COLUMN_TYPE,
    COLUMN_KEY,
    COLUMN_CORRELATION_ID,
    COLUMN_CAUSATION_ID,
    COLUMN_REPLY_TO,
    COLUMN_CONTENT_TYPE,
    COLUMN_HEADERS,
    COLUMN_PAYLOAD,
    COLUMN_PAYLOAD_BYTES,
    COLUMN_CREATED_AT_US,
    COLUMN_TTL_MS,
    COLUMN_ATTEMPTS,
    COLUMN_TRIED_AGE_MS,
    COLUMN_SOLO,
    COLUMN_AGE_MS
};

struct source {
    struct pg *pg;
    struct source_options options;
    size_t limit;   /* rows per claim that the byte bound has lately left us */
    bool full_poll; /* the claim on its way ignores the mark */
    bool pooled;    /* a pooler releases its server connection only when a COMMIT ends the round trip */
    bool asking;    /* a refresh of the mark is on its way */
    struct mark_question question;
    char idle_timeout[NUMBER_BYTES];
};

static void put_number(char out[NUMBER_BYTES], int64_t number)
{
    struct text text;
    text_init(&text, NUMBER_BYTES - 1);
    text_add_number(&text, number);
    memcpy(out, text_get(&text), text.len + 1);
    text_finish(&text);
}

int source_open(struct source **out, const struct source_options *options, int stop_fd, int halt_fd,
                int64_t deadline_ms, struct err *err)
{
    struct source *source = calloc(1, sizeof *source);
    if (!source) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    source->options = *options;
    source->limit = SIZE_MAX;
    put_number(source->idle_timeout, options->transaction_ms);
    const struct pg_options connection = {options->conninfo, options->client_name, stop_fd};
    if (pg_open(&source->pg, &connection, deadline_ms, err) != 0) {
        free(source);
        return -1;
    }
    if (pg_is_pooled(source->pg, &source->pooled, deadline_ms, err) != 0) {
        source_close(source);
        return -1;
    }
    pg_cancel_on(source->pg, halt_fd);
    mark_reset(options->mark);
    *out = source;
    return 0;
}

void source_close(struct source *source)
{
    if (source) {
        pg_close(source->pg);
        free(source);
    }
}

int source_socket(const struct source *source)
{
    return source ? pg_socket(source->pg) : -1;
}

static int64_t answer_deadline(void)
{
    return clock_now_ms() + ANSWER_WITHIN_MS;
}

/* Reads `count` answers of which only the success matters. */
static int skip_answers(struct source *source, int count, struct err *err)
{
    for (int done = 0; done < count; done++) {
        struct pg_rows *rows = NULL;
        if (pg_result(source->pg, &rows, answer_deadline(), err) != 0) {
            return -1;
        }
        pg_rows_free(rows);
    }
    return 0;
}

/* Ends the group after its answers were read, or skips what an error left of it. */
static int end_group(struct source *source, int result, struct err *err)
{
    return pg_end(source->pg, answer_deadline(), err) != 0 ? -1 : result;
}

/* ---- the claim ---- */

static uint64_t filter_of(const struct source *source, const struct source_request *request)
{
    uint64_t filter = bytes_hash(bytes_of(request->resting));
    filter = filter * 31 + bytes_hash(bytes_of(source->options.include));
    return filter * 31 + bytes_hash(bytes_of(source->options.exclude));
}

static int send_begin(struct source *source, struct err *err)
{
    static const char lock_timeout[] = "2000";
    static const char statement_timeout[] = "10000";
    _Static_assert(LOCK_TIMEOUT_MS == 2000 && STATEMENT_TIMEOUT_MS == 10000, "the texts above say the same");
    const char *const guards[] = {source->idle_timeout, lock_timeout, statement_timeout};
    if (pg_send(source->pg, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL, false, err) != 0) {
        return -1;
    }
    return pg_send(source->pg, sql_guards, 3, guards, false, err);
}

/* The first half of the mark goes in front of the claim: locking a row takes the xid that must come after it.
 */
static int send_mark_sequence(struct source *source, uint64_t filter, bool idle, struct err *err)
{
    source->asking = mark_ask(source->options.mark, filter, idle, clock_now_ms(), &source->question);
    return source->asking ? pg_send(source->pg, sql_mark_sequence, 0, NULL, false, err) : 0;
}

static int send_mark_rows(struct source *source, const struct source_request *request, struct err *err)
{
    const struct mark_question *question = &source->question;
    char all[NUMBER_BYTES];
    char filtered[NUMBER_BYTES];
    char highest[NUMBER_BYTES];
    if (!source->asking) {
        return 0;
    }
    put_number(all, question->all);
    put_number(filtered, question->filtered);
    put_number(highest, question->highest);
    const char *const values[] = {
        all, filtered, highest, request->resting, source->options.include, source->options.exclude};
    return pg_send(source->pg, sql_mark_rows, 6, values, false, err);
}

static int read_mark_sequence(struct source *source, int64_t *highest, struct err *err)
{
    struct pg_rows *rows = NULL;
    *highest = 0;
    if (!source->asking) {
        return 0;
    }
    if (pg_result(source->pg, &rows, answer_deadline(), err) != 0) {
        return -1;
    }
    bool usable = pg_number(rows, 0, 1, 0) == 1 && pg_number(rows, 0, 2, 0) == 1;
    *highest = usable ? pg_number(rows, 0, 0, 0) : 0;
    pg_rows_free(rows);
    return 0;
}

static int read_mark_rows(struct source *source, int64_t highest, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (!source->asking) {
        return 0;
    }
    if (pg_result(source->pg, &rows, answer_deadline(), err) != 0) {
        return -1;
    }
    const struct mark_answer answer = {
        .highest = highest,
        .xid = pg_number(rows, 0, 0, 0),
        .xmin = pg_number(rows, 0, 1, 0),
        .first = pg_number(rows, 0, 2, 0),
        .first_filtered = pg_number(rows, 0, 3, 0),
    };
    mark_learn(source->options.mark, &source->question, &answer);
    pg_rows_free(rows);
    return 0;
}

static size_t limit_of(const struct source *source, const struct source_request *request)
{
    return request->max_messages < source->limit ? request->max_messages : source->limit;
}

static int send_claim_message(struct source *source, const struct source_request *request, struct err *err)
{
    uint64_t filter = filter_of(source, request);
    int64_t start = mark_start(source->options.mark, filter, clock_now_ms(), &source->full_poll);
    if (request->after_seq >= start) {
        start = request->after_seq + 1;
        source->full_poll = false;
    }
    char start_text[NUMBER_BYTES];
    char limit[NUMBER_BYTES];
    char max_bytes[NUMBER_BYTES];
    put_number(start_text, start);
    put_number(limit, (int64_t)limit_of(source, request));
    put_number(max_bytes, source->options.max_bytes);
    const char *const values[] = {
        start_text, limit, max_bytes, request->resting, source->options.include, source->options.exclude};
    if (send_mark_sequence(source, filter, false, err) != 0 ||
        pg_send(source->pg, sql_claim, 6, values, true, err) != 0) {
        return -1;
    }
    return send_mark_rows(source, request, err);
}

static int send_claim_scheduled(struct source *source, const struct source_request *request, struct err *err)
{
    char limit[NUMBER_BYTES];
    char max_bytes[NUMBER_BYTES];
    put_number(limit, (int64_t)limit_of(source, request));
    put_number(max_bytes, source->options.max_bytes);
    const char *const promote[] = {"1000"};
    const char *const values[] = {limit, max_bytes, request->resting, source->options.include,
                                  source->options.exclude};
    source->asking = false;
    source->full_poll = false;
    if (pg_send(source->pg, sql_promote, 1, promote, false, err) != 0) {
        return -1;
    }
    return pg_send(source->pg, sql_claim_scheduled, 5, values, true, err);
}

static int send_claim(struct source *source, const struct source_request *request, struct err *err)
{
    if (send_begin(source, err) != 0) {
        return -1;
    }
    return request->scheduled ? send_claim_scheduled(source, request, err)
                              : send_claim_message(source, request, err);
}

static struct outbox_bytes column(const struct pg_rows *rows, size_t at, int number)
{
    struct bytes value = pg_value(rows, at, number);
    return (struct outbox_bytes){value.ptr, value.len};
}

static enum outbox_kind kind_of(struct bytes word)
{
    if (bytes_equal(word, bytes_of("command"))) {
        return OUTBOX_COMMAND;
    }
    return bytes_equal(word, bytes_of("reply")) ? OUTBOX_REPLY : OUTBOX_EVENT;
}

static void read_row(struct batch *batch, struct row *row, const struct pg_rows *rows, size_t at)
{
    struct outbox_message *message = &row->message;
    message->kind = kind_of(pg_value(rows, at, COLUMN_KIND));
    message->seq = pg_number(rows, at, COLUMN_SEQ, 0);
    message->id = column(rows, at, COLUMN_ID);
    message->channel = column(rows, at, COLUMN_CHANNEL);
    message->type = column(rows, at, COLUMN_TYPE);
    message->key = column(rows, at, COLUMN_KEY);
    message->correlation_id = column(rows, at, COLUMN_CORRELATION_ID);
    message->causation_id = column(rows, at, COLUMN_CAUSATION_ID);
    message->reply_to = column(rows, at, COLUMN_REPLY_TO);
    message->content_type = column(rows, at, COLUMN_CONTENT_TYPE);
    message->payload =
        column(rows, at, pg_is_null(rows, at, COLUMN_PAYLOAD_BYTES) ? COLUMN_PAYLOAD : COLUMN_PAYLOAD_BYTES);
    message->created_at_us = pg_number(rows, at, COLUMN_CREATED_AT_US, 0);
    message->ttl_ms = pg_number(rows, at, COLUMN_TTL_MS, -1);
    row->entry = pg_number(rows, at, COLUMN_ENTRY, 0);
    row->attempts = (uint32_t)pg_number(rows, at, COLUMN_ATTEMPTS, 0);
    row->tried_age_ms = pg_number(rows, at, COLUMN_TRIED_AGE_MS, -1);
    row->solo = pg_number(rows, at, COLUMN_SOLO, 0) == 1;
    row->age_ms = pg_number(rows, at, COLUMN_AGE_MS, 0);
    message->attempt = row->attempts + 1;
    if (message->ttl_ms == 0) {
        batch_refuse(batch, row, "expired", "its expires_at passed before it could be sent");
        return;
    }
    batch_set_headers(batch, row, column(rows, at, COLUMN_HEADERS));
}

static void free_rows(void *owner)
{
    pg_rows_free(owner);
}

/* Locks without payloads are cheap, but not free: after a claim that the byte bound cut, ask for about what
 * fits. */
static void adapt_limit(struct source *source, const struct batch *batch)
{
    uint64_t bytes = 0;
    for (size_t at = 0; at < batch->count; at++) {
        bytes += batch->rows[at].message.payload.len;
    }
    bool near_bound = bytes > (uint64_t)source->options.max_bytes / 2;
    source->limit = near_bound ? batch->count * 2 : SIZE_MAX;
}

/* What a full poll found must not lie below the mark. */
static void check_full_poll(struct source *source, int64_t first_seq)
{
    if (source->full_poll && first_seq > 0 && mark_contradicted(source->options.mark, first_seq)) {
        LOG(source->options.log, LOG_WARNING,
            "a row below the low watermark was found: was seq assigned by hand, or the sequence cached?",
            log_number("seq", first_seq));
    }
}

/* Reads BEGIN, guards, claim and mark; the group's end stays to be read. */
static int read_claim(struct source *source, const struct source_request *request, struct batch *batch,
                      struct err *err)
{
    struct pg_rows *rows = NULL;
    int64_t highest = 0;
    if (skip_answers(source, request->scheduled ? 3 : 2, err) != 0 ||
        read_mark_sequence(source, &highest, err) != 0 ||
        pg_result(source->pg, &rows, answer_deadline(), err) != 0) {
        return -1;
    }
    batch->owner = rows;
    batch->release = free_rows;
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        struct row *row = batch_add(batch);
        if (!row) {
            return err_set(err, ERR_INTERNAL, "the claim returned more rows than were asked for");
        }
        read_row(batch, row, rows, at);
    }
    adapt_limit(source, batch);
    check_full_poll(source, batch->count > 0 ? batch->rows[0].message.seq : 0);
    return read_mark_rows(source, highest, err);
}

/* An empty claim must not leave a transaction behind; one that promoted rows must keep them. */
static int end_if_empty(struct source *source, const struct batch *batch, struct err *err)
{
    return batch->count > 0 ? 0 : pg_query(source->pg, "COMMIT", 0, NULL, NULL, answer_deadline(), err);
}

int source_claim(struct source *source, const struct source_request *request, struct batch *batch,
                 struct err *err)
{
    batch_clear(batch);
    if (send_claim(source, request, err) != 0 || pg_sync(source->pg, err) != 0) {
        return -1;
    }
    if (end_group(source, read_claim(source, request, batch, err), err) != 0) {
        return -1;
    }
    return end_if_empty(source, batch, err);
}

/* ---- settle and commit ---- */

int source_settle(struct source *source, const struct batch *batch, bool *refused, struct err *err)
{
    return settle_batch(source->pg, batch, source->options.backend, answer_deadline(), source->options.log,
                        refused, err);
}

/* Reads the answers of settle and COMMIT. */
static int read_commit(struct source *source, const struct batch *batch, bool *committed, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (settle_answers(source->pg, batch, answer_deadline(), source->options.log, err) != 0 ||
        pg_result(source->pg, &rows, answer_deadline(), err) != 0) {
        return -1;
    }
    *committed = pg_did(rows, "COMMIT");
    pg_rows_free(rows);
    return *committed ? 0 : err_set(err, ERR_RETRY, "the transaction was rolled back at COMMIT");
}

/* COMMIT alone, or with the next claim behind it in the same round trip. */
static int commit_chain(struct source *source, const struct source_request *next, struct batch *batch,
                        bool *committed, struct err *err)
{
    if (pg_send(source->pg, "COMMIT", 0, NULL, false, err) != 0 ||
        (next && send_claim(source, next, err) != 0) || pg_sync(source->pg, err) != 0) {
        return -1;
    }
    int result = read_commit(source, batch, committed, err);
    batch_clear(batch);
    if (result == 0 && next) {
        result = read_claim(source, next, batch, err);
    }
    return end_group(source, result, err);
}

int source_commit(struct source *source, const struct source_request *next, struct batch *batch,
                  bool *committed, struct err *err)
{
    *committed = false;
    const struct source_request *chained = source->pooled ? NULL : next;
    if (commit_chain(source, chained, batch, committed, err) != 0) {
        return -1;
    }
    if (next && !chained) {
        return source_claim(source, next, batch, err);
    }
    return next ? end_if_empty(source, batch, err) : 0;
}

/* ---- the look ---- */

int source_look(struct source *source, const struct source_request *request, struct source_look *look,
                struct err *err)
{
    uint64_t filter = filter_of(source, request);
    char start[NUMBER_BYTES];
    put_number(start, mark_start(source->options.mark, filter, clock_now_ms(), &source->full_poll));
    const char *const values[] = {start, request->resting, source->options.include, source->options.exclude};
    if (send_begin(source, err) != 0 || send_mark_sequence(source, filter, true, err) != 0 ||
        pg_send(source->pg, sql_look, 4, values, true, err) != 0 ||
        send_mark_rows(source, request, err) != 0 ||
        pg_send(source->pg, "COMMIT", 0, NULL, false, err) != 0 || pg_sync(source->pg, err) != 0) {
        return -1;
    }
    struct pg_rows *rows = NULL;
    int64_t highest = 0;
    int result = skip_answers(source, 2, err);
    if (result == 0) {
        result = read_mark_sequence(source, &highest, err);
    }
    if (result == 0) {
        result = pg_result(source->pg, &rows, answer_deadline(), err);
    }
    if (result == 0) {
        look->waiting = !pg_is_null(rows, 0, 0);
        look->scheduled = pg_number(rows, 0, 1, 0) == 1;
        check_full_poll(source, pg_number(rows, 0, 0, 0));
        pg_rows_free(rows);
        result = read_mark_rows(source, highest, err);
    }
    return end_group(source, result, err);
}
