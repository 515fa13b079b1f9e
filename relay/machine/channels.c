#include "machine/channels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"

enum { BUCKETS = 4096, MAX_CHANNELS = 65536, REMEMBERED_TRIES = 256, REASON_BYTES = 400 };

struct channel {
    struct channel *next; /* in its bucket */
    int64_t confirmed_ms; /* last confirm; -1 = none */
    int64_t rests_until_ms;
    unsigned holds;    /* in a row */
    unsigned refusals; /* since the last confirm */
    char *reason;      /* while it rests */
    size_t name_len;
    char name[];
};

struct
try {
    int64_t seq;
    int64_t at_ms;
};

struct channels {
    pthread_mutex_t lock;
    struct backoff backoff;
    struct channel *buckets[BUCKETS];
    size_t count;
    int64_t last_rest_ends_ms; /* nothing rests after it */
    struct try tries[REMEMBERED_TRIES];
    size_t next_try;
};

int channels_new(struct channels **out, int64_t rest_min_ms, int64_t rest_max_ms, struct err *err)
{
    struct channels *channels = calloc(1, sizeof *channels);
    if (!channels) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    (void)pthread_mutex_init(&channels->lock, NULL);
    backoff_init(&channels->backoff, rest_min_ms, rest_max_ms);
    *out = channels;
    return 0;
}

static void free_channel(struct channel *channel)
{
    free(channel->reason);
    free(channel);
}

/* Drops the entries that do not rest, or all of them. */
static void drop(struct channels *channels, bool all, int64_t now_ms)
{
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        struct channel **link = &channels->buckets[bucket];
        while (*link) {
            struct channel *channel = *link;
            if (!all && channel->rests_until_ms > now_ms) {
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
        drop(channels, true, 0);
        (void)pthread_mutex_destroy(&channels->lock);
        free(channels);
    }
}

static struct channel *find(struct channels *channels, struct bytes name)
{
    struct channel *channel = channels->buckets[bytes_hash(name) % BUCKETS];
    while (channel && !bytes_equal((struct bytes){channel->name, channel->name_len}, name)) {
        channel = channel->next;
    }
    return channel;
}

/* NULL when memory is short, or when more channels rest than we care to know. */
static struct channel *find_or_add(struct channels *channels, struct bytes name, int64_t now_ms)
{
    struct channel *channel = find(channels, name);
    if (channel) {
        return channel;
    }
    if (channels->count >= MAX_CHANNELS) {
        drop(channels, false, now_ms);
    }
    channel = channels->count < MAX_CHANNELS ? malloc(sizeof *channel + name.len + 1) : NULL;
    if (!channel) {
        return NULL;
    }
    struct channel **bucket = &channels->buckets[bytes_hash(name) % BUCKETS];
    *channel = (struct channel){.next = *bucket, .confirmed_ms = -1, .name_len = name.len};
    memcpy(channel->name, name.ptr, name.len);
    channel->name[name.len] = '\0';
    *bucket = channel;
    channels->count++;
    return channel;
}

void channels_confirmed(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find_or_add(channels, name, now_ms);
    if (channel) {
        channel->confirmed_ms = now_ms;
        channel->holds = 0;
        channel->refusals = 0;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

bool channels_hold(struct channels *channels, struct bytes name, const char *reason, int64_t retry_after_ms,
                   int64_t now_ms)
{
    bool began = false;
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find_or_add(channels, name, now_ms);
    if (channel && channel->rests_until_ms <= now_ms) {
        began = true;
        channel->holds++;
        channel->rests_until_ms =
            now_ms +
            (retry_after_ms > 0 ? retry_after_ms : backoff_for_ms(&channels->backoff, channel->holds));
        if (channel->rests_until_ms > channels->last_rest_ends_ms) {
            channels->last_rest_ends_ms = channel->rests_until_ms;
        }
        free(channel->reason);
        channel->reason = strndup(reason, REASON_BYTES);
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return began;
}

bool channels_rests(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels->last_rest_ends_ms > now_ms ? find(channels, name) : NULL;
    bool rests = channel && channel->rests_until_ms > now_ms;
    (void)pthread_mutex_unlock(&channels->lock);
    return rests;
}

bool channels_has_evidence(struct channels *channels, struct bytes name, int64_t since_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find(channels, name);
    bool evidence = channel && channel->confirmed_ms >= since_ms;
    (void)pthread_mutex_unlock(&channels->lock);
    return evidence;
}

unsigned channels_refused(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find_or_add(channels, name, now_ms);
    unsigned refusals = channel ? ++channel->refusals : 1;
    (void)pthread_mutex_unlock(&channels->lock);
    return refusals;
}

int64_t channels_last_try(struct channels *channels, int64_t seq)
{
    int64_t at_ms = -1;
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t at = 0; at < REMEMBERED_TRIES; at++) {
        if (channels->tries[at].seq == seq && channels->tries[at].at_ms > at_ms) {
            at_ms = channels->tries[at].at_ms;
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return at_ms;
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
    channels->tries[place] = (struct try){seq, now_ms};
    (void)pthread_mutex_unlock(&channels->lock);
}

int64_t channels_resting(struct channels *channels, int64_t now_ms, struct text *out)
{
    int64_t earliest_ms = CLOCK_NEVER_MS;
    text_clear(out);
    text_add(out, "{");
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t bucket = 0; bucket < BUCKETS && channels->last_rest_ends_ms > now_ms; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (channel->rests_until_ms > now_ms && out->len + 2 * channel->name_len + 8 < out->max_bytes) {
                text_add(out, out->len > 1 ? "," : "");
                text_add_quoted(out, (struct bytes){channel->name, channel->name_len});
                earliest_ms = channel->rests_until_ms < earliest_ms ? channel->rests_until_ms : earliest_ms;
            }
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    text_add(out, "}");
    if (out->overflow) { /* memory is short, and half a literal is none */
        text_clear(out);
        text_add(out, "{}");
    }
    return earliest_ms;
}

void channels_each_rest(struct channels *channels, int64_t now_ms,
                        void (*see)(void *context, const struct channel_rest *rest), void *context)
{
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (channel->rests_until_ms > now_ms) {
                const struct channel_rest rest = {channel->name, channel->reason ? channel->reason : "",
                                                  channel->rests_until_ms - now_ms};
                see(context, &rest);
            }
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
}
