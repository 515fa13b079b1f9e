/*
 * channels_turns - who comes next when a rest is over.
 *
 * A channel whose rest is over is still on hold: it waits for its turn, in which some of those that wait are
 * claimed beside the others. Else thousands of them, each with its rows in front, would fill batch after
 * batch; and the set that an ordinary claim leaves out, and with it the mark, would change all the time.
 */
#include <limits.h>

#include "channels/channels_state.h"

/* TURN_REST: after a turn, so many times its own length is for the others; of those that are slow and work,
 * TURN_REST_SLOW times, and SLOW_AGAIN_MS at least: the lanes of their rows may be in another's hands.
 * IN_VAIN_MAX: a claim in order looks at some of the lanes only. */
enum { TURN_REST = 4, TURN_REST_SLOW = 1, TURN_REST_MAX_MS = 2000, SLOW_AGAIN_MS = 100, IN_VAIN_MAX = 16 };

static bool waits(const struct channels *channels, const struct channel *channel, int64_t now_ms)
{
    return channel->rests_until_ms <= now_ms && channel_is_apart(channels, channel, now_ms) &&
           !channel->trying;
}

enum chosen { CHOOSE_UNPROVEN, CHOOSE_PROVEN };

static void choose_in(struct channels *channels, size_t bucket, enum chosen which, bool owed, int64_t now_ms)
{
    struct channel *channel = channels->buckets[bucket];
    for (; channel && channels->in_turn_count < TURN_MAX; channel = channel->next) {
        bool proven = channel->confirmed_ms >= 0;
        if (waits(channels, channel, now_ms) && proven == (which == CHOOSE_PROVEN) &&
            (!owed || channel->owed)) {
            channel->in_turn = true;
            channels->in_turn[channels->in_turn_count++] = channel;
            channels->turn_is_slow = channels->turn_is_slow || channel_is_slow(channels, channel, now_ms);
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
            channel->slow_until_ms =
                view == TURN_WHOLE ? 0 : channel->slow_until_ms; /* nothing to leave out */
        }
        channel->in_turn = false;
    }
    channels->in_turn_count = 0;
}

unsigned channels_take_turn(struct channels *channels, int64_t now_ms, struct text *left_out,
                            struct text *only)
{
    unsigned turn = 0;
    (void)pthread_mutex_lock(&channels->lock);
    if (channels->any_on_hold && now_ms >= channels_next_turn(channels, now_ms)) {
        answer_turn(channels, TURN_UNSEEN); /* of one that took too long */
        channels->turn_is_slow = false;
        enum chosen which = channels->turn_of_proven ? CHOOSE_PROVEN : CHOOSE_UNPROVEN;
        enum chosen other = channels->turn_of_proven ? CHOOSE_UNPROVEN : CHOOSE_PROVEN;
        if (choose(channels, which, now_ms) || choose(channels, other, now_ms)) {
            channels->turn_of_proven = !channels->turn_of_proven;
            channels->last_turn += channels->last_turn == UINT_MAX ? 2 : 1;
            turn = channels->turn = channels->last_turn;
            channels->turn_began_ms = now_ms;
            channels->turns_on++;
            channels_list_nobody(left_out);
            channels_list_nobody(only);
            bool alone = channels->turn_is_slow || channels->newcomers_until_ms > now_ms;
            if (!alone || !channels_list_turn(channels, only)) {
                (void)channels_list(channels, LIST_ON_HOLD_BUT_TURN, now_ms, left_out);
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
            channel->in_vain = 0;
            channel->trying = turn;
        }
    }
    if (turn == channels->turn) {
        answer_turn(channels, view);
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

/* What it tried is settled, or nobody knows. */
static void let_go(struct channels *channels, unsigned turn, bool quick)
{
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        for (struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            bool tried = channel->trying == turn;
            channel->trying = tried ? 0 : channel->trying;
            bool works = tried && quick && channel->confirmed_ms >= channels->turn_began_ms;
            channel->slow_until_ms = works ? 0 : channel->slow_until_ms;
        }
    }
}

void channels_end_turn(struct channels *channels, unsigned turn, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool quick = turn == channels->turn && now_ms - channels->turn_began_ms < CHANNELS_LONG_MS / 2;
    let_go(channels, turn, quick);
    channels->turns_on--;
    if (turn == channels->turn) {
        answer_turn(channels, TURN_UNSEEN);
        int64_t share = channels->turn_is_slow ? TURN_REST_SLOW : TURN_REST;
        int64_t rest_ms = share * (now_ms - channels->turn_began_ms);
        rest_ms = channels->turn_is_slow && rest_ms < SLOW_AGAIN_MS ? SLOW_AGAIN_MS : rest_ms;
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
            any =
                waits(channels, channel, now_ms) && channel->holds > 0 && channel->rests_until_ms <= since_ms;
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return any;
}
