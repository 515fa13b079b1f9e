/*
 * channels_crowds - who fills the claims, and the claims that go past him.
 */
#include "channels/channels_state.h"

/* CROWD_SHARE: a channel with more than one in so many of the rows of a full claim crowds (OTHERS_SHARE: of
 * one for the others), or with more than one in BYTES_SHARE of its bytes where that is much. It does so for
 * CROWD_MS, twice as long when an ordinary claim finds it again, and again: who does not any more is one of
 * the others soon. OTHERS_MS: likewise in vain, but where others
 * have worked in the last WORKED_MS not longer than OTHERS_LOOK times what the look took, or
 * OTHERS_SOON_MS; OTHERS_REST: so many times its own length is for ordinary claims if it brought nothing. One
 * that did rests as long as it took: what it has to pass grows with the time since the last one, and with a
 * longer rest ever more of it, where rows come quickly. */
enum {
    CROWD_SHARE = 16,
    CROWD_ROWS = 8,
    OTHERS_SHARE = 4,
    BYTES_SHARE = 4,
    CROWD_BYTES = 1 << 20,
    CROWD_MS = 1000,
    CROWD_DOUBLINGS = 6,
    SHARE = 4,
    PART_KNOWN_MS = 10000,
    OTHERS_COME_MS = 1000,
    OTHERS_MS = 5,
    OTHERS_DOUBLINGS = 8,
    OTHERS_REST = 4,
    OTHERS_LOOK = 20,
    OTHERS_SOON_MS = 50,
    OTHERS_QUICK_MS = 100,
    OTHERS_BOUND_MS = 10000,
    OTHERS_FAILED_MS = 60000
};

/* Has another one worked lately? Else it is not likely that there are others, and a look for them may have to
 * pass all that one has in front. */
static bool others_worked(const struct channels *channels, int64_t now_ms)
{
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        for (const struct channel *channel = channels->buckets[bucket]; channel; channel = channel->next) {
            if (channel->confirmed_ms >= 0 && now_ms - channel->confirmed_ms < WORKED_MS &&
                channel->crowds_until_ms <= now_ms) {
                return true;
            }
        }
    }
    return false;
}

static int64_t in_vain_ms(const struct others *others)
{
    return (int64_t)OTHERS_MS << others->in_vain;
}

static void expect_others(struct channels *channels, int64_t now_ms)
{
    bool likely = others_worked(channels, now_ms);
    for (size_t rows = 0; rows < ROWS_KINDS; rows++) {
        struct others *others = &channels->others[rows];
        others->in_vain = likely ? 0 : OTHERS_DOUBLINGS - 1;
        others->at_ms = likely ? now_ms : now_ms + in_vain_ms(others);
    }
}

static void crowd(struct channels *channels, struct channel *channel, bool for_others, int64_t now_ms)
{
    if (channel->crowds_until_ms > now_ms) {
        return;
    }
    int64_t last_ms = (int64_t)CROWD_MS << channel->crowded;
    bool again = !for_others && channel->crowds_until_ms > 0 && now_ms - channel->crowds_until_ms < last_ms;
    channel->crowded = again ? channel->crowded + (channel->crowded < CROWD_DOUBLINGS) : 0;
    channel->crowds_until_ms = now_ms + ((int64_t)CROWD_MS << channel->crowded);
    if (channel->crowds_until_ms > channels->last_crowd_ends_ms) {
        channels->last_crowd_ends_ms = channel->crowds_until_ms;
    }
}

static bool has_too_much(const struct channel *channel, size_t share, size_t rows, uint64_t bytes)
{
    bool many = channel->rows >= CROWD_ROWS || 2 * channel->rows > rows;
    return (many && channel->rows * share > rows) ||
           (channel->bytes >= CROWD_BYTES && channel->bytes * BYTES_SHARE > bytes);
}

static uint64_t count_shares(struct channels *channels, const struct batch *batch, int64_t now_ms)
{
    uint64_t bytes = 0;
    struct channel *channel = NULL;
    channels->full_claims++;
    for (size_t at = 0; at < batch->count; at++) {
        channel = channels_find_next(channels, &batch->rows[at], channel, now_ms);
        bytes += batch->rows[at].message.payload.len;
        if (!channel) {
            continue;
        }
        if (channel->seen != channels->full_claims) {
            channel->seen = channels->full_claims;
            channel->rows = 0;
            channel->bytes = 0;
        }
        channel->rows++;
        channel->bytes += batch->rows[at].message.payload.len;
    }
    return bytes;
}

/* Not when it does so again, a moment later. */
static bool begins_to_crowd(const struct channels *channels, int64_t now_ms)
{
    return channels->last_crowd_ends_ms == 0 || now_ms - channels->last_crowd_ends_ms >= WORKED_MS;
}

void channels_see_newcomers(struct channels *channels, enum channels_rows rows, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool began = begins_to_crowd(channels, now_ms);
    channels->newcomers_until_ms = now_ms + CROWD_MS;
    if (channels->newcomers_until_ms > channels->last_crowd_ends_ms) {
        channels->last_crowd_ends_ms = channels->newcomers_until_ms;
    }
    channels->others[rows].next = true;
    if (began) {
        expect_others(channels, now_ms);
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_see_full(struct channels *channels, const struct batch *batch, enum channels_rows rows,
                       bool for_others, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool began = begins_to_crowd(channels, now_ms);
    uint64_t bytes = count_shares(channels, batch, now_ms);
    struct channel *channel = NULL;
    for (size_t at = 0; at < batch->count; at++) {
        channel = channels_find_next(channels, &batch->rows[at], channel, now_ms);
        if (channel && channel->seen == channels->full_claims &&
            has_too_much(channel, for_others ? OTHERS_SHARE : CROWD_SHARE, batch->count, bytes)) {
            channel->seen = 0; /* once is enough */
            crowd(channels, channel, for_others, now_ms);
        }
    }
    channels->others[rows].next = channels->others[rows].next || !for_others;
    if (began && channels->last_crowd_ends_ms > now_ms) {
        expect_others(channels, now_ms);
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

size_t channels_share(struct channels *channels, size_t rows, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool scarce = channels->last_crowd_ends_ms > now_ms && channels->others_came_ms > 0 &&
                  now_ms - channels->others_came_ms < OTHERS_COME_MS;
    bool known = channels->part_at_ms > 0 && now_ms - channels->part_at_ms < PART_KNOWN_MS;
    bool as_long = known && 4 * channels->part_ms > 3 * channels->whole_ms && channels->whole_ms > 0;
    size_t part = scarce && !as_long && rows >= (size_t)SHARE * CROWD_ROWS ? rows / SHARE : rows;
    size_t few = NEWCOMERS_SHARE * channels->newcomers;
    part = channels->newcomers_until_ms > now_ms && few < part ? few : part;
    (void)pthread_mutex_unlock(&channels->lock);
    return part;
}

void channels_took(struct channels *channels, size_t rows, size_t most, int64_t took_ms, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    if (rows == most) {
        channels->whole_ms = took_ms;
    } else if (rows == most / SHARE) {
        channels->part_ms = took_ms;
        channels->part_at_ms = now_ms;
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

/* Where it has to pass very many rows of those that crowd, it must not be all that a worker does. */
static int64_t rest_of(const struct channels *channels, int64_t times, int64_t bound_ms, int64_t now_ms)
{
    int64_t took_ms = now_ms - channels->others_began_ms;
    int64_t rest_ms = took_ms > OTHERS_QUICK_MS ? times * took_ms : 0;
    return rest_ms < bound_ms ? rest_ms : bound_ms;
}

/* Where others have worked lately, a message of theirs may come at any time, and to look costs little. */
static int64_t wait_in_vain(const struct channels *channels, const struct others *others, int64_t now_ms)
{
    int64_t wait_ms = in_vain_ms(others);
    int64_t look_ms = OTHERS_LOOK * (now_ms - channels->others_began_ms);
    int64_t most_ms = look_ms > OTHERS_SOON_MS ? look_ms : OTHERS_SOON_MS;
    return wait_ms > most_ms && others_worked(channels, now_ms) ? most_ms : wait_ms;
}

void channels_others_claimed(struct channels *channels, size_t rows, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct others *others = &channels->others[channels->others_rows];
    channels->others_on = false;
    bool of_messages = channels->others_rows != ROWS_RETRIES;
    channels->others_came_ms = rows > 0 && of_messages ? now_ms : channels->others_came_ms;
    channels->others_at_ms = now_ms + rest_of(channels, rows > 0 ? 1 : OTHERS_REST, OTHERS_BOUND_MS, now_ms);
    others->at_ms = rows > 0 ? now_ms : now_ms + wait_in_vain(channels, others, now_ms);
    others->in_vain = rows > 0 ? 0 : others->in_vain + (others->in_vain < OTHERS_DOUBLINGS);
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_others_failed(struct channels *channels, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    channels->others_on = false;
    channels->others_at_ms = now_ms + rest_of(channels, OTHERS_REST, OTHERS_FAILED_MS, now_ms);
    (void)pthread_mutex_unlock(&channels->lock);
}

/* True where all that is asked for has a name. */
static bool name_others(struct channels *channels, struct others *others, int64_t now_ms, struct text *only)
{
    bool all = others->all;
    others->all = !all;
    return (!all && channels_list_named(channels, NAME_FREE_BUT_CROWDS, now_ms, only) > 0) ||
           channels_list_named(channels, NAME_FREE, now_ms, only) > 0;
}

bool channels_take_others(struct channels *channels, enum channels_rows rows, int64_t now_ms,
                          struct text *left_out, struct text *only)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct others *others = &channels->others[rows];
    bool theirs = others->next && !channels->others_on && now_ms >= others->at_ms &&
                  now_ms >= channels->others_at_ms && channels->last_crowd_ends_ms > now_ms;
    if (theirs) {
        others->next = false;
        channels->others_on = true;
        channels->others_rows = rows;
        channels->others_began_ms = now_ms;
        channels_list_nobody(left_out);
        channels_list_nobody(only);
        bool by_name = rows != ROWS_RETRIES && channels->newcomers_until_ms > now_ms;
        if (!by_name || !name_others(channels, others, now_ms, only)) {
            (void)channels_list(channels,
                                rows == ROWS_RETRIES ? LIST_RETRIES_REST_AND_CROWDS : LIST_ON_HOLD_AND_CROWDS,
                                now_ms, left_out);
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return theirs;
}
