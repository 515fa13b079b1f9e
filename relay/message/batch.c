#include "message/batch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/secrets.h"

enum { REASON_MAX_BYTES = 512, ARENA_MAX_BYTES = 256 << 20, RETRY_AFTER_MAX_MS = 24 * 3600 * 1000 };

int64_t batch_clamp_ms(int64_t retry_after_ms)
{
    int64_t most_ms = retry_after_ms < RETRY_AFTER_MAX_MS ? retry_after_ms : RETRY_AFTER_MAX_MS;
    return most_ms > 0 ? most_ms : 0;
}

static void settle(struct outbox_batch *lent, size_t index, enum outbox_verdict verdict, const char *reason,
                   int64_t retry_after_ms)
{
    struct batch *batch = (struct batch *)lent;
    if (!batch->is_lent || index >= lent->count || verdict < OUTBOX_UNSETTLED || verdict > OUTBOX_REJECTED) {
        batch->misuses++;
        return;
    }
    if (failpoint("after_publish")) {
        return; /* as if the answer had been lost */
    }
    struct row *row = &batch->rows[batch->row_of[index]];
    if (row->verdict != OUTBOX_UNSETTLED || row->not_sent || row->spoiled) {
        batch->misuses++;
        row->spoiled = true;
        row->not_sent = false;
        /* Two answers about one message: nothing is known. The row stays. */
        row->verdict = OUTBOX_UNSETTLED;
        return;
    }
    row->settled_ms = clock_now_ms();
    row->verdict = verdict;
    row->not_sent = verdict == OUTBOX_UNSETTLED;
    row->retry_after_ms = batch_clamp_ms(retry_after_ms);
    if (reason && verdict != OUTBOX_CONFIRMED) {
        char clean[REASON_MAX_BYTES];
        secrets_copy(clean, sizeof clean, bytes_of(reason));
        const char *copy = arena_copy(&batch->arena, bytes_of(clean));
        row->error = copy ? copy : "the backend's reason did not fit into memory";
    }
}

int batch_init(struct batch *batch, size_t capacity, struct err *err)
{
    *batch =
        (struct batch){.lent = {.size = sizeof(struct outbox_batch), .settle = settle}, .capacity = capacity};
    arena_init(&batch->arena, ARENA_MAX_BYTES);
    batch->rows = calloc(capacity, sizeof *batch->rows);
    batch->messages = calloc(capacity, sizeof(struct outbox_message *));
    batch->row_of = calloc(capacity, sizeof *batch->row_of);
    if (!batch->rows || !batch->messages || !batch->row_of) {
        batch_finish(batch);
        return err_set(err, ERR_INTERNAL, "out of memory for a batch of %zu rows", capacity);
    }
    batch->lent.messages = batch->messages;
    return 0;
}

void batch_finish(struct batch *batch)
{
    batch_drop_payloads(batch);
    arena_finish(&batch->arena);
    free(batch->rows);
    free((void *)batch->messages);
    free(batch->row_of);
    *batch = (struct batch){0};
}

void batch_drop_payloads(struct batch *batch)
{
    if (batch->release) {
        batch->release(batch->owner);
    }
    batch->release = NULL;
    batch->owner = NULL;
}

void batch_clear(struct batch *batch)
{
    batch_drop_payloads(batch);
    arena_reset(&batch->arena);
    batch->count = 0;
    batch->lent.count = 0;
    batch->is_lent = false;
}

struct row *batch_add(struct batch *batch)
{
    if (batch->count == batch->capacity) {
        return NULL;
    }
    struct row *row = &batch->rows[batch->count++];
    *row = (struct row){.message = {.size = sizeof(struct outbox_message),
                                    .ttl_ms = -1,
                                    .header_size = sizeof(struct outbox_header)},
                        .ttl_ms = -1,
                        .tried_age_ms = -1,
                        .error = "",
                        .burial = "rejected",
                        .known = {-1, -1}};
    return row;
}

void batch_refuse(struct batch *batch, struct row *row, const char *burial, const char *format, ...)
{
    char reason[REASON_MAX_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    char clean[REASON_MAX_BYTES]; /* a cut may have split a character, and the text goes into the database */
    secrets_copy(clean, sizeof clean, bytes_of(reason));
    const char *copy = arena_copy(&batch->arena, bytes_of(clean));
    row->verdict = OUTBOX_REJECTED;
    row->burial = burial;
    row->error = copy ? copy : "refused before it was sent";
}

static bool same_key(const struct outbox_message *one, const struct outbox_message *other)
{
    return one->key.len == other->key.len && one->channel.len == other->channel.len &&
           memcmp(one->key.ptr, other->key.ptr, one->key.len) == 0 &&
           memcmp(one->channel.ptr, other->channel.ptr, one->channel.len) == 0;
}

/* The place in the table where the latest row of this key is noted, or may be. */
static size_t find_key(const struct batch *batch, const size_t *latest, size_t places,
                       const struct outbox_message *message)
{
    uint64_t hash = bytes_hash((struct bytes){message->key.ptr, message->key.len}) * 31 +
                    bytes_hash((struct bytes){message->channel.ptr, message->channel.len});
    size_t place = (size_t)hash % places;
    while (latest[place] != 0 && !same_key(&batch->rows[latest[place] - 1].message, message)) {
        place = (place + 1) % places;
    }
    return place;
}

int batch_order_by_key(struct batch *batch, struct err *err)
{
    size_t places = 2 * batch->count + 1; /* half empty: a search ends soon */
    size_t *latest = arena_alloc(&batch->arena, places * sizeof *latest);
    if (!latest) {
        return err_set(err, ERR_INTERNAL, "out of memory for the keys of %zu rows", batch->count);
    }
    memset(latest, 0, places * sizeof *latest);
    for (size_t at = 0; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        if (row->has_key) {
            size_t place = find_key(batch, latest, places, &row->message);
            row->before = latest[place];
            latest[place] = at + 1;
        }
    }
    return 0;
}

bool batch_is_next(const struct batch *batch, const struct row *row)
{
    return row->verdict == OUTBOX_UNSETTLED && !row->lent &&
           (row->before == 0 || batch->rows[row->before - 1].verdict == OUTBOX_CONFIRMED);
}

static bool may_lend(const struct batch *batch, const struct row *row)
{
    return !row->withheld && batch_is_next(batch, row);
}

bool batch_has_wave(const struct batch *batch)
{
    for (size_t at = 0; at < batch->count; at++) {
        if (may_lend(batch, &batch->rows[at])) {
            return true;
        }
    }
    return false;
}

/* Tells the row what is left of its life; false, and refused, if that is nothing. */
static bool is_alive(struct batch *batch, struct row *row, int64_t now_ms)
{
    if (row->ttl_ms < 0) {
        return true;
    }
    row->message.ttl_ms = row->ttl_ms - (now_ms - batch->claimed_ms);
    if (row->message.ttl_ms > 0) {
        return true;
    }
    row->message.ttl_ms = 0;
    batch_refuse(batch, row, "expired", "its expires_at passed before it could be sent");
    return false;
}

struct outbox_batch *batch_lend(struct batch *batch, int64_t now_ms)
{
    size_t lent = 0;
    for (size_t at = 0; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        row->in_last_wave = may_lend(batch, row) && is_alive(batch, row, now_ms);
        if (row->in_last_wave) {
            batch->messages[lent] = &row->message;
            batch->row_of[lent++] = at;
            row->lent = true;
            row->lent_ms = now_ms;
        }
    }
    batch->lent.count = lent;
    batch->is_lent = true;
    return &batch->lent;
}

void batch_take_back(struct batch *batch, int64_t now_ms)
{
    batch->is_lent = false;
    for (size_t at = 0; at < batch->lent.count; at++) {
        struct row *row = &batch->rows[batch->row_of[at]];
        if (row->not_sent && !is_alive(batch, row, now_ms)) {
            row->not_sent = false;
        }
    }
}

size_t batch_count_unknown(const struct batch *batch)
{
    size_t count = 0;
    for (size_t at = 0; at < batch->lent.count; at++) {
        const struct row *row = &batch->rows[batch->row_of[at]];
        count += row->verdict == OUTBOX_UNSETTLED && !row->not_sent;
    }
    return count;
}

size_t batch_count_not_sent(const struct batch *batch)
{
    size_t count = 0;
    for (size_t at = 0; at < batch->lent.count; at++) {
        count += batch->rows[batch->row_of[at]].not_sent;
    }
    return count;
}

size_t batch_count_verdict(const struct batch *batch, enum outbox_verdict verdict)
{
    size_t count = 0;
    for (size_t at = 0; at < batch->count; at++) {
        count += batch->rows[at].verdict == verdict;
    }
    return count;
}
