#include "machine/verdict.h"

static struct bytes channel_of(const struct row *row)
{
    return (struct bytes){row->message.channel.ptr, row->message.channel.len};
}

static void bury(struct row *row, const char *burial)
{
    row->fate = ROW_BURIED;
    row->burial = burial;
}

static void schedule(struct row *row, const struct verdict_context *context)
{
    row->fate = ROW_SCHEDULED;
    row->wait_ms = row->retry_after_ms > 0
                       ? row->retry_after_ms
                       : backoff_for_ms(context->backoff, row->attempts ? row->attempts : 1);
}

static bool too_old(const struct row *row, const struct verdict_context *context)
{
    return context->rules->give_up_after_ms > 0 && row->age_ms > context->rules->give_up_after_ms;
}

static void rest_channel(const struct row *row, const struct verdict_context *context)
{
    if (channels_hold(context->channels, channel_of(row), row->error, row->retry_after_ms, context->now_ms)) {
        char channel[256];
        bytes_copy_printable(channel, sizeof channel, channel_of(row));
        LOG(context->log, LOG_WARNING, "channel is on hold; its messages wait, nothing is lost",
            log_text("channel", channel), log_text("reason", row->error));
    }
}

static void hold(struct row *row, const struct verdict_context *context)
{
    if (too_old(row, context)) {
        bury(row, "age");
        return;
    }
    row->fate = ROW_STAYS;
    rest_channel(row, context);
}

/* Has anything of its channel been confirmed since this row was last tried; for a first try, since this batch
 * began? */
static bool has_evidence(const struct row *row, const struct verdict_context *context)
{
    int64_t since_ms = context->began_ms;
    if (row->tried_age_ms >= 0) {
        since_ms = context->began_ms - row->tried_age_ms;
    } else {
        int64_t tried_ms = channels_last_try(context->channels, row->message.seq);
        since_ms = tried_ms >= 0 ? tried_ms : since_ms;
    }
    return channels_has_evidence(context->channels, channel_of(row), since_ms);
}

static void retry(struct row *row, const struct verdict_context *context)
{
    if (too_old(row, context)) {
        bury(row, "age");
    } else if (has_evidence(row, context)) {
        row->attempts++;
        if (context->rules->max_attempts > 0 && row->attempts >= context->rules->max_attempts) {
            bury(row, "attempts");
        } else {
            schedule(row, context);
        }
    } else if (row->entry != 0) {
        schedule(row, context); /* it waits on its own: its channel may well be working */
    } else {
        row->fate = ROW_STAYS;
        channels_tried(context->channels, row->message.seq, context->now_ms);
        /* In suspect mode one refusal may be this row's own fault, and its neighbours are to tell. Two in a
         * row are not. */
        if (channels_refused(context->channels, channel_of(row), context->now_ms) > 1 || !context->single) {
            rest_channel(row, context);
        }
    }
}

/* The session died while this row was in flight. Alone, it is suspect; in company, nobody knows. */
static void lost(struct row *row, const struct verdict_context *context, bool alone)
{
    row->error = context->loss;
    if (alone) {
        row->solo = true;
        retry(row, context);
    } else if (row->entry != 0) {
        row->solo =
            true; /* retries are few: send each alone from now on, so that the guilty one shows itself */
        row->fate = ROW_SCHEDULED;
        row->wait_ms = 0;
    } else {
        row->fate = ROW_STAYS;
    }
}

static void decide_row(struct row *row, const struct verdict_context *context, bool alone)
{
    switch (row->verdict) {
    case OUTBOX_CONFIRMED:
        row->fate = ROW_DELETED;
        return;
    case OUTBOX_HOLD:
        hold(row, context);
        return;
    case OUTBOX_RETRY:
        retry(row, context);
        return;
    case OUTBOX_REJECTED:
        bury(row, row->burial);
        return;
    case OUTBOX_UNSETTLED:
        break;
    }
    if (context->loss && row->lent && !row->not_sent) {
        lost(row, context, alone);
    } else {
        row->fate = ROW_STAYS;
    }
}

static void count(struct tally *tally, const struct row *row)
{
    tally->unsettled += row->verdict == OUTBOX_UNSETTLED && row->lent && !row->not_sent;
    tally->held += row->verdict == OUTBOX_HOLD && row->fate == ROW_STAYS;
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

static void log_burial(const struct row *row, const struct verdict_context *context)
{
    char id[64];
    char channel[256];
    bytes_copy_printable(id, sizeof id, (struct bytes){row->message.id.ptr, row->message.id.len});
    bytes_copy_printable(channel, sizeof channel, channel_of(row));
    LOG(context->log, LOG_WARNING, "message set aside as a dead letter", log_text("id", id),
        log_text("channel", channel), log_text("reason", row->burial), log_number("attempts", row->attempts),
        log_text("error", row->error));
}

void verdict_decide(struct batch *batch, const struct verdict_context *context, struct tally *tally)
{
    *tally = (struct tally){.next_due_ms = -1};
    /* One wave of one message proves nothing: the rows before it may have been confirmed before an outage
     * began. */
    bool alone = batch->count == 1;
    struct bytes latest = {NULL, 0};
    for (size_t at = 0; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        if (row->verdict == OUTBOX_CONFIRMED && !bytes_equal(latest, channel_of(row))) {
            latest = channel_of(row);
            channels_confirmed(context->channels, latest, context->now_ms);
        }
    }
    for (size_t at = 0; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        decide_row(row, context, alone);
        count(tally, row);
        if (row->fate == ROW_BURIED) {
            log_burial(row, context);
        }
    }
}
