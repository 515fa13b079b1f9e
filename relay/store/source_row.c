#include "store/source_row.h"

/* The columns of claim*.sql. */
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
    COLUMN_WAITED_MS,
    COLUMN_SOLO,
    COLUMN_AGE_MS,
    COLUMN_TOO_LARGE, /* its bytes, where they are more than may be loaded */
    COLUMNS
};

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

/* Of type json, so the server parsed it. */
static bool is_json(const struct pg_rows *rows, size_t at)
{
    return pg_is_null(rows, at, COLUMN_PAYLOAD_BYTES) && !pg_is_null(rows, at, COLUMN_PAYLOAD);
}

/* Whatever somebody wrote there: one more must fit into the column again. */
static uint32_t attempts_of(int64_t number)
{
    return (uint32_t)(number < 0 ? 0 : number < INT32_MAX ? number : INT32_MAX - 1);
}

static void read_row(struct batch *batch, struct row *row, const struct pg_rows *rows, size_t at,
                     int64_t max_message_bytes)
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
    message->flags = is_json(rows, at) ? OUTBOX_MESSAGE_IS_JSON : 0;
    message->created_at_us = pg_number(rows, at, COLUMN_CREATED_AT_US, 0);
    message->ttl_ms = pg_number(rows, at, COLUMN_TTL_MS, -1);
    row->has_key = !pg_is_null(rows, at, COLUMN_KEY);
    row->entry = pg_number(rows, at, COLUMN_ENTRY, 0);
    row->attempts = attempts_of(pg_number(rows, at, COLUMN_ATTEMPTS, 0));
    row->tried_age_ms = pg_number(rows, at, COLUMN_TRIED_AGE_MS, -1);
    row->waited_ms = pg_number(rows, at, COLUMN_WAITED_MS, 0);
    row->solo = pg_number(rows, at, COLUMN_SOLO, 0) == 1;
    row->age_ms = pg_number(rows, at, COLUMN_AGE_MS, 0);
    message->attempt = row->attempts + 1;
    row->ttl_ms = message->ttl_ms;
    if (message->ttl_ms == 0) {
        batch_refuse(batch, row, "expired", "its expires_at passed before it could be sent");
        return;
    }
    if (!pg_is_null(rows, at, COLUMN_TOO_LARGE)) {
        batch_refuse(batch, row, "rejected", "it has %lld bytes, batch.max_message_bytes allows %lld",
                     (long long)pg_number(rows, at, COLUMN_TOO_LARGE, 0), (long long)max_message_bytes);
        return;
    }
    batch_set_headers(batch, row, column(rows, at, COLUMN_HEADERS));
}

static void free_rows(void *owner)
{
    pg_rows_free(owner);
}

int source_read_rows(struct batch *batch, struct pg_rows *rows, int64_t max_message_bytes, struct err *err)
{
    batch->owner = rows;
    batch->release = free_rows;
    if (pg_columns_count(rows) != COLUMNS) {
        return err_set(err, ERR_INTERNAL, "a claim has %d columns, %d are read", pg_columns_count(rows),
                       COLUMNS);
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        struct row *row = batch_add(batch);
        if (!row) {
            return err_set(err, ERR_INTERNAL, "the claim returned more rows than were asked for");
        }
        read_row(batch, row, rows, at, max_message_bytes);
    }
    return 0;
}
