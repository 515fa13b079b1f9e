#include "machine/verdict.h"

#include <stdlib.h>
#include <string.h>

/* In haste, a tenth; but of the attempts that count, those from a third on wait as long as they are told to.
 */
enum { HASTE = 10, HASTY_SHARE = 3, HASTY_ATTEMPTS = 3 };

/* ---- the channels of a batch ---- */

int verdict_init(struct verdict *verdict, size_t capacity, struct err *err)
{
    *verdict = (struct verdict){.capacity = capacity};
    verdict->channels = calloc(capacity, sizeof *verdict->channels);
    verdict->slots = calloc(2 * capacity, sizeof *verdict->slots);
    return verdict->channels && verdict->slots
               ? 0
               : err_set(err, ERR_INTERNAL, "out of memory for the channels of %zu rows", capacity);
}

void verdict_finish(struct verdict *verdict)
{
    free(verdict->channels);
    free(verdict->slots);
    *verdict = (struct verdict){0};
}

/* At most half of the slots are in use: a search ends soon. */
static struct verdict_channel *find(struct verdict *verdict, const struct row *row)
{
    struct bytes name = row_channel(row);
    size_t places = 2 * verdict->capacity;
    size_t place = (size_t)bytes_hash(name) % places;
    while (verdict->slots[place] != 0) {
        struct verdict_channel *channel = &verdict->channels[verdict->slots[place] - 1];
        if (bytes_equal(channel->name, name)) {
            return channel;
        }
        place = (place + 1) % places;
    }
    struct verdict_channel *channel = &verdict->channels[verdict->count++];
    verdict->slots[place] = verdict->count;
    *channel = (struct verdict_channel){.name = name, .out_since_ms = INT64_MAX};
    return channel;
}

/* ---- evidence ---- */

/* Has anything of its channel been confirmed since this row was last tried; for a first try, since this batch
 * began? */
static bool has_evidence(const struct row *row, const struct verdict_channel *channel,
                         const struct verdict_context *context)
{
    int64_t since_ms = row->known.tried_ms >= 0 ? row->known.tried_ms : context->began_ms;
    return channel->confirmed > 0 || row->known.confirmed_ms >= since_ms;
}

/* The session died while the row was in flight. */
static bool is_lost(const struct row *row, const struct verdict_context *context)
{
    return context->loss && row->verdict == OUTBOX_UNSETTLED && row->lent && !row->not_sent;
}

/* Refused, perhaps by its own fault. One wave of one message proves nothing: the rows before it may have been
 * confirmed before an outage began. */
static bool is_refused(const struct row *row, const struct batch *batch,
                       const struct verdict_context *context)
{
    return row->verdict == OUTBOX_RETRY || (is_lost(row, context) && batch->count == 1);
}

/* Refused, and the session died of it, as far as the backend knows. */
static bool is_blamed(const struct row *row, const struct verdict_context *context)
{
    return context->loss && row->in_last_wave && row->verdict == OUTBOX_RETRY;
}

/* ---- what the channel's rows say together ---- */

static void count_time(struct verdict_channel *channel, const struct row *row)
{
    bool answered = row->settled_ms > 0;
    int64_t took_ms = answered ? row->settled_ms - row->lent_ms : 0;
    int64_t since_ms = row->lent && !answered ? row->lent_ms : INT64_MAX;
    channel->took_ms = took_ms > channel->took_ms ? took_ms : channel->took_ms;
    channel->out_since_ms = since_ms < channel->out_since_ms ? since_ms : channel->out_since_ms;
}

static void count_confirms(struct verdict *verdict, const struct batch *batch,
                           const struct verdict_context *context)
{
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
        struct verdict_channel *channel = find(verdict, row);
        channel->confirmed += row->verdict == OUTBOX_CONFIRMED;
        channel->settled += row->lent && row->verdict != OUTBOX_UNSETTLED;
        channel->rows++;
        channel->lent += row->lent;
        count_time(channel, row);
    }
    for (size_t at = 0; at < batch->count; at++) {
        struct verdict_channel *channel = find(verdict, &batch->rows[at]);
        channel->costly =
            channel->costly || (is_blamed(&batch->rows[at], context) && channel->confirmed == 0);
    }
}

/* Held: by its verdict, or refused without evidence. A retry waits on its own: its channel may well be
 * working. */
static bool is_held(const struct row *row, const struct verdict_channel *channel, const struct batch *batch,
                    const struct verdict_context *context)
{
    if (row->verdict == OUTBOX_HOLD) {
        return row->entry == 0 || row->retry_after_ms > 0 || !has_evidence(row, channel, context);
    }
    return is_refused(row, batch, context) && row->entry == 0 && !has_evidence(row, channel, context);
}

static void count_holds(struct verdict *verdict, const struct batch *batch,
                        const struct verdict_context *context)
{
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
        struct verdict_channel *channel = find(verdict, row);
        if (is_held(row, channel, batch, context)) {
            channel->held++;
            channel->walled += row->verdict == OUTBOX_HOLD;
            channel->wall = channel->wall ? channel->wall : row;
            channel->tentative = context->single && row->verdict != OUTBOX_HOLD;
            channel->retry_after_ms =
                row->verdict == OUTBOX_HOLD && row->retry_after_ms > channel->retry_after_ms
                    ? row->retry_after_ms
                    : channel->retry_after_ms;
        }
    }
    for (size_t at = 0; at < verdict->count; at++) {
        struct verdict_channel *channel = &verdict->channels[at];
        bool minority = channel->retry_after_ms == 0 && 2 * channel->held < channel->settled;
        channel->wall = minority ? NULL : channel->wall;
    }
}

/* ---- what becomes of each row ---- */

static void bury(struct row *row, const char *burial)
{
    row->fate = ROW_BURIED;
    row->burial = burial;
}

/* Most trouble of one message in many is over in a moment. */
static int64_t in_haste(int64_t wait_ms, const struct verdict_context *context)
{
    return context->rules->hasty ? (wait_ms + HASTE - 1) / HASTE : wait_ms;
}

static int64_t wait_of_attempt(uint32_t attempts, const struct verdict_context *context)
{
    int64_t wait_ms = backoff_for_ms(context->backoff, attempts);
    uint32_t most = context->rules->max_attempts;
    bool early = attempts <= HASTY_ATTEMPTS && (most == 0 || HASTY_SHARE * attempts < most);
    return early ? in_haste(wait_ms, context) : wait_ms;
}

/* There is no count of holds, but the last wait is known. It must not outlast the outage by much. */
static int64_t wait_of_hold(int64_t waited_ms, const struct verdict_context *context)
{
    int64_t wait_ms = waited_ms > 0 ? backoff_after_ms(context->backoff, waited_ms)
                                    : in_haste(backoff_for_ms(context->backoff, 1), context);
    int64_t most_ms = context->rules->hold_max_ms;
    return most_ms > 0 && wait_ms > most_ms ? most_ms : wait_ms;
}

static int64_t wait_of(const struct row *row, bool counted, const struct verdict_context *context)
{
    if (row->retry_after_ms > 0) {
        return row->retry_after_ms;
    }
    return counted ? wait_of_attempt(row->attempts, context) : wait_of_hold(row->waited_ms, context);
}

static void schedule(struct row *row, bool counted, const struct verdict_context *context)
{
    row->fate = ROW_SCHEDULED;
    row->wait_ms = wait_of(row, counted, context);
    if (row->message.ttl_ms >= 0 && row->message.ttl_ms < row->wait_ms) {
        row->wait_ms = row->message.ttl_ms; /* it expires sooner, and must not block its key until then */
    }
}

static bool too_old(const struct row *row, const struct verdict_context *context)
{
    return context->rules->give_up_after_ms > 0 && row->age_ms > context->rules->give_up_after_ms;
}

/* The destination cannot take it now: no attempt is counted. Few wait on their own; a channel at a wall rests
 * with all of them. */
static void hold(struct row *row, struct verdict_channel *channel, const struct verdict_context *context)
{
    if (too_old(row, context)) {
        bury(row, "age");
    } else if (channel->wall) {
        row->fate = ROW_STAYS;
    } else {
        schedule(row, false, context);
        channel->few += row->entry == 0; /* a retry that waits on says nothing new of its channel */
    }
}

static void retry(struct row *row, struct verdict_channel *channel, const struct verdict_context *context)
{
    if (too_old(row, context)) {
        bury(row, "age");
    } else if (has_evidence(row, channel, context)) {
        row->attempts++;
        if (context->rules->max_attempts > 0 && row->attempts >= context->rules->max_attempts) {
            bury(row, "attempts");
        } else {
            schedule(row, true, context);
        }
    } else if (row->entry != 0) {
        schedule(row, false, context);
    } else {
        hold(row, channel, context);
        row->refused = row->fate == ROW_STAYS;
    }
}

/* In company, nobody knows which row it was; retries are few: each is sent alone from now on, so that the
 * guilty one shows itself. */
static void lost_in_company(struct row *row)
{
    row->fate = ROW_STAYS;
    if (row->entry != 0) {
        row->solo = true;
        row->fate = ROW_SCHEDULED;
        row->wait_ms = 0;
    }
}

static void decide(struct row *row, struct verdict_channel *channel, const struct batch *batch,
                   const struct verdict_context *context)
{
    if (is_lost(row, context)) {
        row->error = context->loss;
        row->solo = row->solo || batch->count == 1;
    }
    row->solo = row->solo || is_blamed(row, context);
    if (row->verdict == OUTBOX_CONFIRMED) {
        row->fate = ROW_DELETED;
    } else if (row->verdict == OUTBOX_REJECTED) {
        bury(row, row->burial);
    } else if (row->verdict == OUTBOX_HOLD) {
        hold(row, channel, context);
    } else if (is_refused(row, batch, context)) {
        retry(row, channel, context);
    } else if (is_lost(row, context)) {
        lost_in_company(row);
    } else {
        row->fate = ROW_STAYS;
    }
}

/* ---- what is told ---- */

static enum verdict_burial burial_of(const char *word)
{
    static const char *const words[VERDICT_BURIALS] = {"rejected", "expired", "attempts", "age"};
    enum verdict_burial burial = VERDICT_REJECTED;
    while (burial + 1 < VERDICT_BURIALS && strcmp(words[burial], word) != 0) {
        burial++;
    }
    return burial;
}

static void note_burial(struct verdict_channel *channel, const struct row *row)
{
    enum verdict_burial burial = burial_of(row->burial);
    if (channel->buried[burial].rows++ == 0) {
        channel->buried[burial].first = row;
    }
}

static void count(struct tally *tally, const struct row *row)
{
    tally->unsettled += row->verdict == OUTBOX_UNSETTLED && row->lent && !row->not_sent;
    tally->held += row->verdict == OUTBOX_HOLD && row->fate != ROW_BURIED;
    tally->confirmed += row->fate == ROW_DELETED;
    tally->buried += row->fate == ROW_BURIED;
    tally->retried += row->fate == ROW_SCHEDULED;
    if (row->fate == ROW_DELETED) {
        tally->payload_bytes += row->message.payload.len;
    }
    if (row->fate == ROW_SCHEDULED && (tally->next_due_ms < 0 || row->wait_ms < tally->next_due_ms)) {
        tally->next_due_ms = row->wait_ms;
    }
}

void verdict_decide(struct verdict *verdict, struct batch *batch, const struct verdict_context *context)
{
    verdict->tally = (struct tally){.next_due_ms = -1};
    verdict->count = 0;
    memset(verdict->slots, 0, 2 * verdict->capacity * sizeof *verdict->slots);
    count_confirms(verdict, batch, context);
    count_holds(verdict, batch, context);
    for (size_t at = 0; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        struct verdict_channel *channel = find(verdict, row);
        decide(row, channel, batch, context);
        count(&verdict->tally, row);
        if (row->fate == ROW_BURIED) {
            note_burial(channel, row);
        }
    }
}
