/*
 * channels_rest - who rests, alone or as one of very many, and what is told of it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "channels/channels_state.h"

/* TELL_OTHER_MS: for another reason; a receiver may say the same in ever other words. */
enum { COUNT_AGAIN_MS = 100, REASON_BYTES = 400, TELL_AGAIN_MS = 60000, TELL_OTHER_MS = 10000 };

static size_t count_resting(struct channels *channels, int64_t now_ms)
{
    if (now_ms >= channels->count_again_ms) {
        channels->count_again_ms = clock_after(now_ms, COUNT_AGAIN_MS);
        channels->resting = 0;
        for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
            for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
                channels->resting += channel_is_on_hold(channel, now_ms);
            }
        }
    }
    return channels->resting;
}

/* The one to be told to rest; NULL if there are so many that they rest as a group. */
static struct channel *find_for_rest(struct channels *channels, struct bytes name, int64_t now_ms)
{
    struct channel *channel = channels_find(channels, name);
    if (!channel && channels->count >= MAX_RESTING && count_resting(channels, now_ms) >= MAX_RESTING) {
        return NULL;
    }
    return channel ? channel : channels_find_or_add(channels, name, now_ms);
}

static void remember_reason(struct channel *channel, const char *reason)
{
    if (!channel->reason || strncmp(channel->reason, reason, REASON_BYTES) != 0) {
        free(channel->reason);
        channel->reason = strndup(reason, REASON_BYTES);
        channel->other = channel->told_ms >= 0;
    }
}

static void tell(struct channel *channel, struct channel_news *news, int64_t now_ms)
{
    int64_t again_ms = channel->other ? TELL_OTHER_MS : TELL_AGAIN_MS;
    news->tell = channel->told_ms < 0 || now_ms - channel->told_ms >= again_ms;
    channel->other = channel->other && !news->tell;
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
    channels->newcomers_failed += channel_is_new(channel);
    channel->rests_until_ms = rest_until(channels, ++channel->holds, retry_after_ms, now_ms);
    channel->passed = channel->owed = channel->waived = false;
    channel->in_vain = channel->trying = 0;
    channels->any_on_hold = true;
    channels->resting++;
    remember_reason(channel, reason);
    tell(channel, news, now_ms);
    return true;
}

static bool begin_group_rest(struct channels *channels, int64_t now_ms, struct channel_news *news)
{
    channels->newcomers_failed++;
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

void channels_waive_turn(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find(channels, name);
    if (channel) {
        channel->passed = channel->waived = true;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

bool channels_rests(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool any = channels->last_rest_ends_ms > now_ms;
    struct channel *channel = any ? channels_find(channels, name) : NULL;
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
