/* worker_report - what a batch has taught about its channels: remembered, and told in a line per channel and
 * reason. */
#include <stdio.h>

#include "machine/worker_state.h"

enum { NAME_BYTES = 256 };

static void put_name(char out[NAME_BYTES], const struct verdict_channel *channel)
{
    (void)snprintf(out, NAME_BYTES, "%.*s", (int)channel->name.len,
                   channel->name.ptr); /* the log escapes it */
}

static bool may_tell(struct worker *worker, enum log_level level, enum told kind)
{
    static const char *const kinds[] = {[TOLD_REST] = "channels on hold",
                                        [TOLD_GOES_ON] = "channels that go on",
                                        [TOLD_BURIAL] = "dead letters"};
    struct shared *shared = worker->shared;
    int64_t left_out = 0;
    if (shared->log->level < level) {
        return false;
    }
    bool may = log_may_tell(&shared->told[kind], clock_now_ms(), &left_out);
    if (left_out > 0) {
        LOG(shared->log, LOG_WARNING, "more happened in a minute than is shown: 'outbox-relay status' tells",
            log_text("of", kinds[kind]), log_number("lines", left_out));
    }
    return may;
}

static void report_confirms(struct worker *worker, const struct verdict_channel *channel, int64_t now_ms)
{
    struct shared *shared = worker->shared;
    if (channels_confirmed(shared->channels, channel->name, now_ms) &&
        may_tell(worker, LOG_INFO, TOLD_GOES_ON)) {
        char name[NAME_BYTES];
        put_name(name, channel);
        LOG(shared->log, LOG_INFO, "channel goes on: its destination takes messages again",
            log_text("channel", name));
    }
    if (channel->few == 0 && !channel->wall) {
        channels_grow(shared->channels, channel->name);
    }
}

static void report_rest(struct worker *worker, const struct verdict_channel *channel, int64_t now_ms)
{
    struct shared *shared = worker->shared;
    struct channel_news news;
    const char *reason = channel->wall->error;
    if (channel->tentative && channels_refused(shared->channels, channel->name, now_ms) <= 1) {
        return; /* one refusal may be this row's own fault, and its neighbours are to tell; two in a row are
                   not */
    }
    bool began =
        channels_hold(shared->channels, channel->name, reason, channel->retry_after_ms, now_ms, &news);
    if (began && 2 * channel->walled < channel->held) {
        channels_waive_turn(shared->channels, channel->name);
    }
    if (began && news.tell && may_tell(worker, LOG_WARNING, TOLD_REST)) {
        char name[NAME_BYTES];
        put_name(name, channel);
        LOG(shared->log, LOG_WARNING,
            news.group ? "more channels are on hold than are remembered: only those that lately worked go on"
                       : "channel is on hold; its messages wait, nothing is lost",
            log_text("channel", name), log_text("reason", reason), log_number("again", news.again));
    }
}

static void report_burials(struct worker *worker, const struct verdict_channel *channel)
{
    for (size_t at = 0; at < VERDICT_BURIALS; at++) {
        const struct row *row = channel->buried[at].first;
        if (!row || !may_tell(worker, LOG_WARNING, TOLD_BURIAL)) {
            continue;
        }
        char name[NAME_BYTES];
        char id[64];
        put_name(name, channel);
        (void)snprintf(id, sizeof id, "%.*s", (int)row->message.id.len, row->message.id.ptr);
        LOG(worker->shared->log, LOG_WARNING,
            channel->buried[at].rows == 1 ? "message set aside as a dead letter"
                                          : "messages set aside as dead letters",
            log_text("id", id), log_text("channel", name), log_text("reason", row->burial),
            log_number("messages", (int64_t)channel->buried[at].rows), log_number("attempts", row->attempts),
            log_text("error", row->error));
    }
}

void worker_report(struct worker *worker)
{
    const struct verdict *verdict = &worker->verdict;
    struct shared *shared = worker->shared;
    int64_t now_ms = clock_now_ms();
    for (size_t at = 0; at < verdict->count; at++) {
        const struct verdict_channel *channel = &verdict->channels[at];
        if (channel->confirmed > 0) {
            report_confirms(worker, channel, now_ms);
        }
        if (channel->wall) {
            report_rest(worker, channel, now_ms);
        } else if (channel->few > 0) {
            channels_halve(shared->channels, channel->name, channel->lent);
        }
        if (channel->costly) {
            channels_isolate(shared->channels, channel->name);
        }
    }
    for (size_t at = 0; at < worker->batch.count; at++) {
        const struct row *row = &worker->batch.rows[at];
        if (row->refused) {
            channels_tried(shared->channels, row->message.seq, now_ms);
        }
        if (row->lent && row->verdict == OUTBOX_REJECTED) {
            channels_answered(shared->channels, row_channel(row));
        }
    }
}

/* From when its rows were lent: those of a later wave have waited for the earlier ones. */
static int64_t time_of(const struct verdict_channel *channel, int64_t now_ms)
{
    int64_t waited_ms = now_ms - channel->out_since_ms; /* for answers that did not come */
    return waited_ms > channel->took_ms ? waited_ms : channel->took_ms;
}

/* Where all wait for one another, nobody is quick: who has the most of them is why. Did it work, and take a
 * fourth of what others took? */
static bool is_quick(const struct verdict_channel *channel, int64_t took_ms, int64_t longest_ms)
{
    return channel->confirmed > 0 && 4 * took_ms < longest_ms;
}

static void report_long(struct worker *worker, const struct verdict_channel *channel, int64_t took_ms,
                        bool its_own, int64_t now_ms)
{
    struct shared *shared = worker->shared;
    bool retries = worker->request.kind == CLAIM_SCHEDULED;
    bool news = channels_took_long(shared->channels, channel->name, took_ms, retries, its_own, now_ms);
    if (news && channel->confirmed > 0 && /* else it rests, which is told */
        may_tell(worker, LOG_INFO, TOLD_REST)) {
        char name[NAME_BYTES];
        put_name(name, channel);
        LOG(shared->log, LOG_INFO,
            "channel is slow: it has turns of its own, and half of the workers at most, while others are not",
            log_text("channel", name), log_number("took_ms", took_ms));
    }
}

void worker_report_paces(struct worker *worker, int64_t began_ms)
{
    const struct verdict *verdict = &worker->verdict;
    int64_t now_ms = clock_now_ms();
    int64_t longest_ms = 0;
    size_t quick_rows = 0;
    if (worker->single || worker->probing || worker->shared->options.rules.hasty ||
        now_ms - began_ms < CHANNELS_LONG_MS) {
        return; /* a drain is over the sooner, the more workers are at it */
    }
    for (size_t at = 0; at < verdict->count; at++) {
        int64_t took_ms = time_of(&verdict->channels[at], now_ms);
        longest_ms = took_ms > longest_ms ? took_ms : longest_ms;
    }
    for (size_t at = 0; at < verdict->count; at++) {
        const struct verdict_channel *channel = &verdict->channels[at];
        quick_rows += is_quick(channel, time_of(channel, now_ms), longest_ms) ? channel->rows : 0;
    }
    bool quick = 2 * quick_rows > worker->batch.count; /* else it may be who stands in front */
    for (size_t at = 0; at < verdict->count; at++) {
        const struct verdict_channel *channel = &verdict->channels[at];
        int64_t took_ms = time_of(channel, now_ms);
        if (took_ms >= CHANNELS_LONG_MS) {
            report_long(worker, channel, took_ms, quick || 4 * channel->rows > worker->batch.count, now_ms);
        }
    }
}

void worker_report_burials(struct worker *worker, size_t stuck)
{
    size_t buried = worker->verdict.tally.buried - stuck;
    if (stuck > 0 && buried > 0) {
        LOG(worker->shared->log, LOG_WARNING, "messages set aside as dead letters",
            log_number("messages", (int64_t)buried));
    }
    for (size_t at = 0; stuck == 0 && at < worker->verdict.count; at++) {
        report_burials(worker, &worker->verdict.channels[at]);
    }
}
