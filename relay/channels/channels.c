#include "channels/channels.h"

#include <stdlib.h>
#include <string.h>

#include "channels/channels_state.h"

enum { NO_LIMIT_FROM = 5000 /* rows; twice as many is more than a batch has */ };

int channels_new(struct channels **out, size_t asides, int64_t rest_min_ms, int64_t rest_max_ms,
                 struct err *err)
{
    struct channels *channels = calloc(1, sizeof *channels);
    if (!channels) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    (void)pthread_mutex_init(&channels->lock, NULL);
    backoff_init(&channels->backoff, rest_min_ms, rest_max_ms);
    channels->newcomers = NEWCOMERS_FIRST;
    channels->asides_max = asides;
    channels->quick[0].at_ms = channels->quick[1].at_ms = INT64_MIN / 2;
    *out = channels;
    return 0;
}

static void free_channel(struct channel *channel)
{
    free(channel->reason);
    free(channel);
}

enum drop { DROP_UNPROVEN, DROP_WHAT_DOES_NOT_REST, DROP_ALL };

static bool is_kept(const struct channel *channel, enum drop what, int64_t now_ms)
{
    bool held = channel->in_turn || channel->trying || channel->slow_until_ms > now_ms ||
                channel->retries_rest_until_ms > now_ms || channel_is_on_hold(channel, now_ms);
    return what != DROP_ALL && (held || (what == DROP_UNPROVEN && channel->confirmed_ms >= 0));
}

static void drop(struct channels *channels, enum drop what, int64_t now_ms)
{
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        struct channel **link = &channels->buckets[bucket];
        while (*link) {
            struct channel *channel = *link;
            if (is_kept(channel, what, now_ms)) {
                link = &channel->next;
                continue;
            }
            *link = channel->next;
            free_channel(channel);
            channels->count--;
        }
    }
}

void channels_free(struct channels *channels)
{
    if (channels) {
        drop(channels, DROP_ALL, 0);
        (void)pthread_mutex_destroy(&channels->lock);
        free(channels);
    }
}

struct channel *channels_find(struct channels *channels, struct bytes name)
{
    struct channel *channel = channels->buckets[bytes_hash(name) % BUCKETS];
    while (channel && !bytes_equal(channel_name(channel), name)) {
        channel = channel->next;
    }
    return channel;
}

struct channel *channels_find_or_add(struct channels *channels, struct bytes name, int64_t now_ms)
{
    struct channel *channel = channels_find(channels, name);
    if (channel) {
        return channel;
    }
    if (channels->count >= MAX_CHANNELS) {
        drop(channels, DROP_UNPROVEN, now_ms);
    }
    if (channels->count >= MAX_CHANNELS) {
        drop(channels, DROP_WHAT_DOES_NOT_REST, now_ms);
    }
    channel = channels->count < MAX_CHANNELS ? malloc(sizeof *channel + name.len + 1) : NULL;
    if (!channel) {
        return NULL;
    }
    struct channel **bucket = &channels->buckets[bytes_hash(name) % BUCKETS];
    *channel = (struct channel){.next = *bucket, .confirmed_ms = -1, .told_ms = -1, .name_len = name.len};
    memcpy(channel->name, name.ptr, name.len);
    channel->name[name.len] = '\0';
    *bucket = channel;
    channels->count++;
    return channel;
}

struct channel *channels_find_next(struct channels *channels, const struct row *row, struct channel *last,
                                   int64_t now_ms)
{
    struct bytes name = row_channel(row);
    if (last && bytes_equal(channel_name(last), name)) {
        return last;
    }
    return channels->count < MAX_CROWDS ? channels_find_or_add(channels, name, now_ms)
                                        : channels_find(channels, name);
}

/* The latest first, each once. */
static void note_quick(struct channels *channels, uint64_t who, int64_t now_ms)
{
    if (channels->quick[0].who != who) {
        channels->quick[1] = channels->quick[0];
    }
    channels->quick[0] = (struct quick){who, now_ms};
}

bool channels_confirmed(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find_or_add(channels, name, now_ms);
    bool news = channel && channel->told && channel->rests_until_ms <= now_ms;
    if (channel) {
        channels->newcomers_answered += channel_is_new(channel);
        channel->confirmed_ms = now_ms;
        if (channel->slow_until_ms <= now_ms) {
            note_quick(channels, bytes_hash(name), now_ms);
        }
        channel->holds = 0;
        channel->refusals = 0;
        channel->isolated = false;
        channel->told = channel->told && !news;
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return news;
}

/* ---- how much of one may be in flight ---- */

void channels_halve(struct channels *channels, struct bytes name, size_t rows)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find(channels, name);
    if (channel) {
        size_t in_flight = channel->allowance > 0 && channel->allowance < rows ? channel->allowance : rows;
        channel->allowance = in_flight > 1 ? in_flight / 2 : 1;
        channels->limited = true;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_grow(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels->limited ? channels_find(channels, name) : NULL;
    if (channel && channel->allowance > 0) {
        channel->allowance = channel->allowance < NO_LIMIT_FROM ? 2 * channel->allowance : 0;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

size_t channels_allowance(struct channels *channels, struct bytes name, unsigned *holds)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool any = channels->limited || channels->last_rest_ends_ms > 0;
    struct channel *channel = any ? channels_find(channels, name) : NULL;
    size_t allowance = channel && channel->allowance > 0 ? channel->allowance : SIZE_MAX;
    *holds = channel && !channel->waived ? channel->holds : 0;
    (void)pthread_mutex_unlock(&channels->lock);
    return allowance;
}

void channels_isolate(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find(channels, name);
    if (channel) {
        channel->isolated = channels->isolates = true;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

bool channels_is_isolated(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels->isolates ? channels_find(channels, name) : NULL;
    bool isolated = channel && channel->isolated;
    (void)pthread_mutex_unlock(&channels->lock);
    return isolated;
}

/* ---- evidence ---- */

unsigned channels_refused(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find_or_add(channels, name, now_ms);
    unsigned refusals = channel ? ++channel->refusals : 1;
    (void)pthread_mutex_unlock(&channels->lock);
    return refusals;
}

static int64_t last_try(const struct channels *channels, int64_t seq)
{
    int64_t at_ms = -1;
    for (size_t at = 0; at < REMEMBERED_TRIES; at++) {
        if (channels->tries[at].seq == seq && channels->tries[at].at_ms > at_ms) {
            at_ms = channels->tries[at].at_ms;
        }
    }
    return at_ms;
}

void channels_recall(struct channels *channels, struct batch *batch, int64_t began_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t at = 0; at < batch->count; at++) {
        struct row *row = &batch->rows[at];
        if (row->verdict == OUTBOX_CONFIRMED || row->verdict == OUTBOX_REJECTED) {
            continue;
        }
        const struct channel *channel =
            channels_find(channels, (struct bytes){row->message.channel.ptr, row->message.channel.len});
        row->known.confirmed_ms = channel ? channel->confirmed_ms : -1;
        row->known.tried_ms =
            row->tried_age_ms >= 0 ? began_ms - row->tried_age_ms : last_try(channels, row->message.seq);
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_tried(struct channels *channels, int64_t seq, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    size_t place = channels->next_try;
    for (size_t at = 0; at < REMEMBERED_TRIES; at++) {
        place = channels->tries[at].seq == seq ? at : place;
    }
    channels->next_try += place == channels->next_try;
    channels->next_try %= REMEMBERED_TRIES;
    channels->tries[place] = (struct attempt){seq, now_ms};
    (void)pthread_mutex_unlock(&channels->lock);
}
