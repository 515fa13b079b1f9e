#include "machine/channels.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/backoff.h"
#include "base/clock.h"

/* MAX_RESTING: fewer than it remembers, so that bad channels, however many, leave room for the evidence of
 * good ones; what has none, and does not rest, is forgotten first. */
enum {
    BUCKETS = 4096,
    MAX_CHANNELS = 65536,
    MAX_RESTING = 49152,
    COUNT_AGAIN_MS = 100,
    REMEMBERED_TRIES = 256,
    REASON_BYTES = 400,
    TELL_AGAIN_MS = 60000,
    NO_LIMIT_FROM = 5000, /* rows; twice as many is more than a batch has */
    WORKING_MAX = 200
};

struct channel {
    struct channel *next; /* in its bucket */
    int64_t confirmed_ms; /* last confirm; -1 = none */
    int64_t rests_until_ms;
    unsigned holds;    /* in a row */
    unsigned refusals; /* since the last confirm */
    size_t allowance;  /* rows in flight in one batch; 0 = no limit */
    char *reason;      /* of its last rest */
    int64_t told_ms;   /* when a rest for that reason was last told; -1 = never */
    unsigned untold;   /* rests for that reason since then */
    bool told;         /* the rest that it is in, or comes from, was */
    bool isolated;     /* a message of it cost a session, and none was confirmed since */
    size_t name_len;
    char name[];
};

struct attempt {
    int64_t seq;
    int64_t at_ms;
};

struct channels {
    pthread_mutex_t lock;
    struct backoff backoff;
    struct channel *buckets[BUCKETS];
    size_t count;
    int64_t last_rest_ends_ms; /* nothing rests after it */
    size_t resting;            /* of `count`, when last counted */
    int64_t count_again_ms;
    int64_t group_rests_until_ms;
    unsigned group_holds; /* in a row */
    bool limited;         /* a channel has had an allowance */
    bool isolates;        /* one was isolated, ever */
    struct attempt tries[REMEMBERED_TRIES];
    size_t next_try;
    size_t working_from; /* bucket */
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

enum drop { DROP_UNPROVEN, DROP_WHAT_DOES_NOT_REST, DROP_ALL };

static bool is_kept(const struct channel *channel, enum drop what, int64_t now_ms)
{
    bool rests = channel->rests_until_ms > now_ms;
    return what != DROP_ALL && (rests || (what == DROP_UNPROVEN && channel->confirmed_ms >= 0));
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

bool channels_confirmed(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find_or_add(channels, name, now_ms);
    bool news = channel && channel->told && channel->rests_until_ms <= now_ms;
    if (channel) {
        channel->confirmed_ms = now_ms;
        channel->holds = 0;
        channel->refusals = 0;
        channel->isolated = false;
        channel->told = channel->told && !news;
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return news;
}

/* ---- rests ---- */

static size_t count_resting(struct channels *channels, int64_t now_ms)
{
    if (now_ms >= channels->count_again_ms) {
        channels->count_again_ms = clock_after(now_ms, COUNT_AGAIN_MS);
        channels->resting = 0;
        for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
            for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
                channels->resting += channel->rests_until_ms > now_ms;
            }
        }
    }
    return channels->resting;
}

/* The one to be told to rest; NULL if there are so many that they rest as a group. */
static struct channel *find_for_rest(struct channels *channels, struct bytes name, int64_t now_ms)
{
    struct channel *channel = find(channels, name);
    if (!channel && channels->count >= MAX_RESTING && count_resting(channels, now_ms) >= MAX_RESTING) {
        return NULL;
    }
    return channel ? channel : find_or_add(channels, name, now_ms);
}

static void remember_reason(struct channel *channel, const char *reason)
{
    if (!channel->reason || strncmp(channel->reason, reason, REASON_BYTES) != 0) {
        free(channel->reason);
        channel->reason = strndup(reason, REASON_BYTES);
        channel->told_ms = -1;
        channel->untold = 0;
    }
}

static void tell(struct channel *channel, struct channel_news *news, int64_t now_ms)
{
    news->tell = channel->told_ms < 0 || now_ms - channel->told_ms >= TELL_AGAIN_MS;
    news->again = channel->untold;
    channel->told = channel->told || news->tell;
    channel->told_ms = news->tell ? now_ms : channel->told_ms;
    channel->untold = news->tell ? 0 : channel->untold + 1;
}

static int64_t rest_until(struct channels *channels, unsigned holds, int64_t retry_after_ms, int64_t now_ms)
{
    int64_t until_ms =
        clock_after(now_ms, retry_after_ms > 0 ? retry_after_ms : backoff_for_ms(&channels->backoff, holds));
    if (until_ms > channels->last_rest_ends_ms) {
        channels->last_rest_ends_ms = until_ms;
    }
    return until_ms;
}

static bool begin_rest(struct channels *channels, struct channel *channel, const char *reason,
                       int64_t retry_after_ms, int64_t now_ms, struct channel_news *news)
{
    if (channel->rests_until_ms > now_ms) {
        return false;
    }
    channel->rests_until_ms = rest_until(channels, ++channel->holds, retry_after_ms, now_ms);
    channels->resting++;
    remember_reason(channel, reason);
    tell(channel, news, now_ms);
    return true;
}

static bool begin_group_rest(struct channels *channels, int64_t now_ms, struct channel_news *news)
{
    if (channels->group_rests_until_ms > now_ms) {
        return false;
    }
    if (now_ms - channels->group_rests_until_ms > TELL_AGAIN_MS) {
        channels->group_holds = 0; /* another time */
    }
    channels->group_rests_until_ms = rest_until(channels, ++channels->group_holds, 0, now_ms);
    news->tell = news->group = true;
    return true;
}

bool channels_hold(struct channels *channels, struct bytes name, const char *reason, int64_t retry_after_ms,
                   int64_t now_ms, struct channel_news *news)
{
    *news = (struct channel_news){0};
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find_for_rest(channels, name, now_ms);
    bool began = channel ? begin_rest(channels, channel, reason, retry_after_ms, now_ms, news)
                         : begin_group_rest(channels, now_ms, news);
    (void)pthread_mutex_unlock(&channels->lock);
    return began;
}

bool channels_rests(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool any = channels->last_rest_ends_ms > now_ms;
    struct channel *channel = any ? find(channels, name) : NULL;
    bool rests =
        any && (channel ? channel->rests_until_ms > now_ms : channels->group_rests_until_ms > now_ms);
    (void)pthread_mutex_unlock(&channels->lock);
    return rests;
}

bool channels_group_rests(struct channels *channels, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool rests = channels->group_rests_until_ms > now_ms;
    (void)pthread_mutex_unlock(&channels->lock);
    return rests;
}

/* ---- how much of one may be in flight ---- */

void channels_halve(struct channels *channels, struct bytes name, size_t rows)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find(channels, name);
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
    struct channel *channel = channels->limited ? find(channels, name) : NULL;
    if (channel && channel->allowance > 0) {
        channel->allowance = channel->allowance < NO_LIMIT_FROM ? 2 * channel->allowance : 0;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

size_t channels_allowance(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels->limited ? find(channels, name) : NULL;
    size_t allowance = channel && channel->allowance > 0 ? channel->allowance : SIZE_MAX;
    (void)pthread_mutex_unlock(&channels->lock);
    return allowance;
}

void channels_isolate(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find(channels, name);
    if (channel) {
        channel->isolated = channels->isolates = true;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

bool channels_is_isolated(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels->isolates ? find(channels, name) : NULL;
    bool isolated = channel && channel->isolated;
    (void)pthread_mutex_unlock(&channels->lock);
    return isolated;
}

/* ---- evidence ---- */

unsigned channels_refused(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = find_or_add(channels, name, now_ms);
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
            find(channels, (struct bytes){row->message.channel.ptr, row->message.channel.len});
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

/* ---- lists ---- */

/* Memory is short, and half a literal is none. */
static void close_literal(struct text *out)
{
    text_add(out, "}");
    if (out->overflow) {
        text_clear(out);
        text_add(out, "{}");
    }
}

int64_t channels_resting(struct channels *channels, int64_t now_ms, struct text *out)
{
    int64_t earliest_ms = CLOCK_NEVER_MS;
    text_clear(out);
    text_add(out, "{");
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t bucket = 0; bucket < BUCKETS && channels->last_rest_ends_ms > now_ms; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (channel->rests_until_ms > now_ms) {
                text_add(out, out->len > 1 ? "," : "");
                text_add_quoted(out, (struct bytes){channel->name, channel->name_len});
                earliest_ms = channel->rests_until_ms < earliest_ms ? channel->rests_until_ms : earliest_ms;
            }
        }
    }
    if (channels->group_rests_until_ms > now_ms && channels->group_rests_until_ms < earliest_ms) {
        earliest_ms = channels->group_rests_until_ms;
    }
    (void)pthread_mutex_unlock(&channels->lock);
    close_literal(out);
    return earliest_ms;
}

void channels_working(struct channels *channels, int64_t now_ms, struct text *out)
{
    struct text pattern;
    size_t count = 0;
    text_init(&pattern, (size_t)4 * 256);
    text_clear(out);
    text_add(out, "{");
    (void)pthread_mutex_lock(&channels->lock);
    size_t first = channels->working_from; /* where the last answer ended: each has its turn */
    for (size_t bucket = 0; bucket < BUCKETS && count < WORKING_MAX; bucket++) {
        channels->working_from = (first + bucket + 1) % BUCKETS;
        struct channel *channel = channels->buckets[(first + bucket) % BUCKETS];
        for (; channel; channel = channel->next) {
            if (channel->confirmed_ms >= 0 && channel->rests_until_ms <= now_ms) {
                text_clear(&pattern);
                text_add_like_name(&pattern, (struct bytes){channel->name, channel->name_len});
                text_add(out, count++ > 0 ? "," : "");
                text_add_quoted(out, bytes_of(text_get(&pattern)));
            }
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    text_finish(&pattern);
    close_literal(out);
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
