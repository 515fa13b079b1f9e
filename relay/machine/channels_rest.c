/*
 * channels_rest - who rests, and who comes next when a rest is over.
 *
 * A channel whose rest is over is still on hold: it waits for its turn, in which some of those that wait are
 * claimed beside the others. Else thousands of them, each with its rows in front, would fill batch after
 * batch; and the set that an ordinary claim leaves out, and with it the mark, would change all the time.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "machine/channels_state.h"

/* TELL_OTHER_MS: for another reason; a receiver may say the same in ever other words. TURN_REST: after a
 * turn, so many times its own length is for the others. TURN_BOUND_MS: who takes longer has had it.
 * IN_VAIN_MAX: a claim in order looks at some of the lanes only. */
enum {
    COUNT_AGAIN_MS = 100,
    REASON_BYTES = 400,
    TELL_AGAIN_MS = 60000,
    TELL_OTHER_MS = 10000,
    TURN_REST = 4,
    TURN_REST_MAX_MS = 2000,
    TURN_BOUND_MS = 2000,
    IN_VAIN_MAX = 16,
    NAMED_MAX = 4000
};

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

/* ---- lists ---- */

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

static void list_nobody(struct text *out)
{
    begin_list(out);
    (void)end_list(out);
}

static void list_name(struct text *out, const struct channel *channel)
{
    text_add(out, out->len > 1 ? "," : "");
    text_add_quoted(out, channel_name(channel));
}

enum listed { LIST_RESTING, LIST_ON_HOLD, LIST_ON_HOLD_BUT_TURN, LIST_ON_HOLD_AND_CROWDS };

static bool is_listed(const struct channel *channel, enum listed what, int64_t now_ms)
{
    bool rests = channel->rests_until_ms > now_ms;
    bool waits = !rests && channel_is_on_hold(channel, now_ms);
    switch (what) {
    case LIST_RESTING:
        return rests;
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

/* While a group rests, there is no turn: what works is claimed by its name. */
static int64_t next_turn(const struct channels *channels)
{
    int64_t group_ms = channels->group_rests_until_ms;
    int64_t next_ms = channels->turn ? channels->turn_began_ms + TURN_BOUND_MS : channels->next_turn_ms;
    return group_ms > next_ms ? group_ms : next_ms;
}

/* When it may be tried again: at the end of its rest, or with the next turn. */
static int64_t next_try(const struct channels *channels, const struct channel *channel, int64_t now_ms)
{
    if (channel->rests_until_ms > now_ms) {
        return channel->rests_until_ms;
    }
    int64_t turn_ms = channel->trying ? CLOCK_NEVER_MS : next_turn(channels);
    return turn_ms > now_ms ? turn_ms : now_ms;
}

static int64_t list(struct channels *channels, enum listed what, int64_t now_ms, struct text *out)
{
    int64_t earliest_ms = CLOCK_NEVER_MS;
    bool crowds = what == LIST_ON_HOLD_AND_CROWDS;
    bool any = what == LIST_RESTING ? channels->last_rest_ends_ms > now_ms : channels->any_on_hold || crowds;
    size_t count = 0;
    begin_list(out);
    for (size_t bucket = 0; bucket < BUCKETS && any; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (is_listed(channel, what, now_ms)) {
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
    int64_t earliest_ms = list(channels, LIST_RESTING, now_ms, out);
    (void)pthread_mutex_unlock(&channels->lock);
    return earliest_ms;
}

int64_t channels_on_hold(struct channels *channels, int64_t now_ms, struct text *out)
{
    (void)pthread_mutex_lock(&channels->lock);
    int64_t earliest_ms = list(channels, LIST_ON_HOLD, now_ms, out);
    (void)pthread_mutex_unlock(&channels->lock);
    return earliest_ms;
}

/* Which channels are named: those that have worked. */
enum named { NAME_AWAKE, NAME_FREE, NAME_FREE_BUT_CROWDS };

static bool is_named(const struct channel *channel, enum named what, int64_t now_ms)
{
    bool out = what == NAME_AWAKE ? channel->rests_until_ms > now_ms : channel_is_on_hold(channel, now_ms);
    bool crowds = what == NAME_FREE_BUT_CROWDS && channel->crowds_until_ms > now_ms;
    return channel->confirmed_ms >= 0 && !out && !crowds;
}

/* How many; the same ones in the same order where all find room: the mark of such claims is worth something
 * then. Else each has its turn. */
static size_t list_named(struct channels *channels, enum named what, int64_t now_ms, struct text *out)
{
    size_t count = 0;
    size_t first = channels->working_from; /* where the last answer ended */
    begin_list(out);
    for (size_t at = 0; at < BUCKETS && count < NAMED_MAX; at++) {
        channels->working_from = (first + at + 1) % BUCKETS;
        struct channel *channel = channels->buckets[(first + at) % BUCKETS];
        for (; channel && count < NAMED_MAX; channel = channel->next) {
            if (is_named(channel, what, now_ms)) {
                list_name(out, channel);
                count++;
            }
        }
    }
    return end_list(out) ? count : 0;
}

void channels_working(struct channels *channels, int64_t now_ms, struct text *out)
{
    (void)pthread_mutex_lock(&channels->lock);
    (void)list_named(channels, NAME_AWAKE, now_ms, out);
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

/* True where all that is asked for has a name. */
static bool name_others(struct channels *channels, struct others *others, int64_t now_ms, struct text *only)
{
    bool all = others->all;
    others->all = !all;
    return (!all && list_named(channels, NAME_FREE_BUT_CROWDS, now_ms, only) > 0) ||
           list_named(channels, NAME_FREE, now_ms, only) > 0;
}

bool channels_take_others(struct channels *channels, bool keyed, int64_t now_ms, struct text *left_out,
                          struct text *only)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct others *others = &channels->others[keyed];
    bool theirs = others->next && !channels->others_on && now_ms >= others->at_ms &&
                  now_ms >= channels->others_at_ms && channels->last_crowd_ends_ms > now_ms;
    if (theirs) {
        others->next = false;
        channels->others_on = true;
        channels->others_keyed = keyed;
        channels->others_began_ms = now_ms;
        list_nobody(left_out);
        list_nobody(only);
        if (channels->newcomers_until_ms <= now_ms || !name_others(channels, others, now_ms, only)) {
            (void)list(channels, LIST_ON_HOLD_AND_CROWDS, now_ms, left_out);
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return theirs;
}

/* ---- turns ---- */

static bool waits(const struct channel *channel, int64_t now_ms)
{
    return channel->rests_until_ms <= now_ms && channel_is_on_hold(channel, now_ms) && !channel->trying;
}

enum chosen { CHOOSE_UNPROVEN, CHOOSE_PROVEN };

static void choose_in(struct channels *channels, size_t bucket, enum chosen which, bool owed, int64_t now_ms)
{
    struct channel *channel = channels->buckets[bucket];
    for (; channel && channels->in_turn_count < TURN_MAX; channel = channel->next) {
        bool proven = channel->confirmed_ms >= 0;
        if (waits(channel, now_ms) && proven == (which == CHOOSE_PROVEN) && (!owed || channel->owed)) {
            channel->in_turn = true;
            channels->in_turn[channels->in_turn_count++] = channel;
        }
    }
}

/* Those alone that are owed one, if there are such: fewer with each turn, so that each is reached, however
 * many rows of others stand in front. */
static bool choose(struct channels *channels, enum chosen which, int64_t now_ms)
{
    size_t first = channels->turn_from[which];
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        choose_in(channels, bucket, which, true, now_ms);
    }
    bool owed = channels->in_turn_count > 0;
    for (size_t at = 0; at < BUCKETS && !owed && channels->in_turn_count < TURN_MAX; at++) {
        size_t bucket = (first + at) % BUCKETS;
        choose_in(channels, bucket, which, false, now_ms);
        channels->turn_from[which] = channels->in_turn_count < TURN_MAX ? (bucket + 1) % BUCKETS : bucket;
    }
    return channels->in_turn_count > 0;
}

/* Of those that have not shown themselves. */
static void answer_turn(struct channels *channels, enum turn_view view)
{
    for (size_t at = 0; at < channels->in_turn_count; at++) {
        struct channel *channel = channels->in_turn[at];
        if (channel->in_turn && view != TURN_UNSEEN) {
            channel->owed = view == TURN_CUT;
            channel->in_vain += view != TURN_CUT;
            channel->passed = view == TURN_WHOLE || channel->in_vain >= IN_VAIN_MAX;
        }
        channel->in_turn = false;
    }
    channels->in_turn_count = 0;
}

static bool name_turn(const struct channels *channels, struct text *only)
{
    begin_list(only);
    for (size_t at = 0; at < channels->in_turn_count; at++) {
        list_name(only, channels->in_turn[at]);
    }
    return end_list(only);
}

unsigned channels_take_turn(struct channels *channels, int64_t now_ms, struct text *left_out,
                            struct text *only)
{
    unsigned turn = 0;
    (void)pthread_mutex_lock(&channels->lock);
    if (channels->any_on_hold && now_ms >= next_turn(channels)) {
        answer_turn(channels, TURN_UNSEEN); /* of one that took too long */
        enum chosen which = channels->turn_of_proven ? CHOOSE_PROVEN : CHOOSE_UNPROVEN;
        enum chosen other = channels->turn_of_proven ? CHOOSE_UNPROVEN : CHOOSE_PROVEN;
        if (choose(channels, which, now_ms) || choose(channels, other, now_ms)) {
            channels->turn_of_proven = !channels->turn_of_proven;
            channels->last_turn += channels->last_turn == UINT_MAX ? 2 : 1;
            turn = channels->turn = channels->last_turn;
            channels->turn_began_ms = now_ms;
            list_nobody(left_out);
            list_nobody(only);
            if (channels->newcomers_until_ms <= now_ms || !name_turn(channels, only)) {
                (void)list(channels, LIST_ON_HOLD_BUT_TURN, now_ms, left_out);
            }
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return turn;
}

void channels_turn_claimed(struct channels *channels, unsigned turn, const struct batch *batch,
                           enum turn_view view)
{
    (void)pthread_mutex_lock(&channels->lock);
    for (size_t at = 0; at < batch->count && turn == channels->turn; at++) {
        const struct row *row = &batch->rows[at];
        struct channel *channel =
            channels_find(channels, (struct bytes){row->message.channel.ptr, row->message.channel.len});
        if (channel && channel->in_turn) {
            channel->in_turn = channel->owed = false;
            channel->trying = turn;
        }
    }
    if (turn == channels->turn) {
        answer_turn(channels, view);
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

/* What it tried is settled, or nobody knows. */
static void let_go(struct channels *channels, unsigned turn)
{
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            channel->trying = channel->trying == turn ? 0 : channel->trying;
        }
    }
}

void channels_end_turn(struct channels *channels, unsigned turn, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    let_go(channels, turn);
    if (turn == channels->turn) {
        answer_turn(channels, TURN_UNSEEN);
        int64_t rest_ms = TURN_REST * (now_ms - channels->turn_began_ms);
        channels->next_turn_ms = now_ms + (rest_ms < TURN_REST_MAX_MS ? rest_ms : TURN_REST_MAX_MS);
        channels->turn = 0;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

bool channels_owe_a_try(struct channels *channels, int64_t since_ms, int64_t now_ms)
{
    bool any = false;
    (void)pthread_mutex_lock(&channels->lock);
    bool turns = channels->any_on_hold && channels->group_rests_until_ms <= now_ms;
    for (size_t bucket = 0; bucket < BUCKETS && turns && !any; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel && !any; channel = channel->next) {
            any = waits(channel, now_ms) && channel->rests_until_ms <= since_ms;
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return any;
}
