/*
 * channels_lists - channels by name, for claims and for people.
 */
#include "base/clock.h"
#include "channels/channels_state.h"

/* TURN_BOUND_MS: who takes longer has had it. ASIDES_AGAIN_MS: an end of one of them may be seen so late. */
enum { TURN_BOUND_MS = 2000, ASIDES_AGAIN_MS = 100, NAMED_MAX = 4000 };

static void begin_list(struct text *out)
{
    text_clear(out);
    text_add(out, "{");
}

/* False, and an empty list: memory is short, and half a literal is none. */
static bool end_list(struct text *out)
{
    text_add(out, "}");
    bool whole = !out->overflow;
    if (!whole) {
        text_clear(out);
        text_add(out, "{}");
    }
    return whole;
}

void channels_list_nobody(struct text *out)
{
    begin_list(out);
    (void)end_list(out);
}

static void list_name(struct text *out, const struct channel *channel)
{
    text_add(out, out->len > 1 ? "," : "");
    text_add_quoted(out, channel_name(channel));
}

static bool is_listed(const struct channels *channels, const struct channel *channel, enum listed what,
                      int64_t now_ms)
{
    bool rests = channel->rests_until_ms > now_ms;
    bool waits = !rests && channel_is_apart(channels, channel, now_ms);
    bool retries_rest = rests || channel->retries_rest_until_ms > now_ms;
    switch (what) {
    case LIST_RESTING:
        return rests;
    case LIST_RETRIES_REST:
        return retries_rest;
    case LIST_RETRIES_REST_AND_CROWDS:
        return retries_rest || channel->crowds_until_ms > now_ms;
    case LIST_ON_HOLD:
        return rests || waits;
    case LIST_ON_HOLD_BUT_TURN:
        return rests || (waits && !channel->in_turn);
    case LIST_ON_HOLD_AND_CROWDS:
        break;
    }
    return rests || waits || channel->crowds_until_ms > now_ms;
}

static int64_t earlier(int64_t one_ms, int64_t other_ms)
{
    return one_ms < other_ms ? one_ms : other_ms;
}

int64_t channels_next_turn(const struct channels *channels, int64_t now_ms)
{
    int64_t group_ms = channels->group_rests_until_ms;
    int64_t next_ms = channels->turn ? channels->turn_began_ms + TURN_BOUND_MS : channels->next_turn_ms;
    next_ms = group_ms > next_ms ? group_ms : next_ms;
    int64_t again_ms = channels_asides_are_full(channels, now_ms) ? now_ms + ASIDES_AGAIN_MS : now_ms;
    return again_ms > next_ms ? again_ms : next_ms;
}

/* When it may be tried again: at the end of its rest, or with the next turn. */
static int64_t next_try(const struct channels *channels, const struct channel *channel, int64_t now_ms)
{
    if (channel->rests_until_ms > now_ms) {
        return channel->rests_until_ms;
    }
    int64_t turn_ms = channel->trying ? CLOCK_NEVER_MS : channels_next_turn(channels, now_ms);
    return turn_ms > now_ms ? turn_ms : now_ms;
}

int64_t channels_list(struct channels *channels, enum listed what, int64_t now_ms, struct text *out)
{
    int64_t earliest_ms = CLOCK_NEVER_MS;
    bool hold = what == LIST_ON_HOLD || what == LIST_ON_HOLD_BUT_TURN;
    bool rest = what == LIST_RESTING || what == LIST_RETRIES_REST;
    bool slow = what == LIST_RETRIES_REST && channels->slow_retries_until_ms > now_ms;
    bool any = hold ? channels->any_on_hold : rest ? channels->last_rest_ends_ms > now_ms || slow : true;
    size_t count = 0;
    begin_list(out);
    for (size_t bucket = 0; bucket < BUCKETS && any; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (is_listed(channels, channel, what, now_ms)) {
                count++;
                list_name(out, channel);
                earliest_ms = earlier(earliest_ms, next_try(channels, channel, now_ms));
            }
        }
    }
    (void)end_list(out);
    channels->any_on_hold = what == LIST_ON_HOLD ? count > 0 : channels->any_on_hold;
    bool group = channels->group_rests_until_ms > now_ms;
    return group ? earlier(earliest_ms, channels->group_rests_until_ms) : earliest_ms;
}

int64_t channels_resting(struct channels *channels, int64_t now_ms, struct text *out)
{
    (void)pthread_mutex_lock(&channels->lock);
    int64_t earliest_ms = channels_list(channels, LIST_RESTING, now_ms, out);
    (void)pthread_mutex_unlock(&channels->lock);
    return earliest_ms;
}

void channels_without_retries(struct channels *channels, int64_t now_ms, struct text *out)
{
    (void)pthread_mutex_lock(&channels->lock);
    (void)channels_list(channels, LIST_RETRIES_REST, now_ms, out);
    (void)pthread_mutex_unlock(&channels->lock);
}

int64_t channels_on_hold(struct channels *channels, int64_t now_ms, struct text *out)
{
    (void)pthread_mutex_lock(&channels->lock);
    int64_t earliest_ms = channels_list(channels, LIST_ON_HOLD, now_ms, out);
    (void)pthread_mutex_unlock(&channels->lock);
    return earliest_ms;
}

static bool is_named(const struct channels *channels, const struct channel *channel, enum named what,
                     int64_t now_ms)
{
    bool out =
        what == NAME_AWAKE ? channel->rests_until_ms > now_ms : channel_is_apart(channels, channel, now_ms);
    bool crowds = what == NAME_FREE_BUT_CROWDS && channel->crowds_until_ms > now_ms;
    return channel->confirmed_ms >= 0 && !out && !crowds;
}

size_t channels_list_named(struct channels *channels, enum named what, int64_t now_ms, struct text *out)
{
    size_t count = 0;
    size_t first = channels->working_from; /* where the last answer ended */
    begin_list(out);
    for (size_t at = 0; at < BUCKETS && count < NAMED_MAX; at++) {
        channels->working_from = (first + at + 1) % BUCKETS;
        struct channel *channel = channels->buckets[(first + at) % BUCKETS];
        for (; channel && count < NAMED_MAX; channel = channel->next) {
            if (is_named(channels, channel, what, now_ms)) {
                list_name(out, channel);
                count++;
            }
        }
    }
    return end_list(out) ? count : 0;
}

bool channels_list_turn(const struct channels *channels, struct text *only)
{
    begin_list(only);
    for (size_t at = 0; at < channels->in_turn_count; at++) {
        list_name(only, channels->in_turn[at]);
    }
    return end_list(only);
}

void channels_working(struct channels *channels, int64_t now_ms, struct text *out)
{
    (void)pthread_mutex_lock(&channels->lock);
    (void)channels_list_named(channels, NAME_AWAKE, now_ms, out);
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_each_rest(struct channels *channels, int64_t now_ms,
                        void (*see)(void *context, const struct channel_rest *rest), void *context)
{
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (channel_is_on_hold(channel, now_ms)) {
                bool rests = channel->rests_until_ms > now_ms;
                const struct channel_rest rest = {channel->name, channel->reason ? channel->reason : "",
                                                  rests ? channel->rests_until_ms - now_ms : 0};
                see(context, &rest);
            }
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
}
