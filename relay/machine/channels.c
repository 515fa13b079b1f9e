#include "machine/channels.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "machine/channels_state.h"

enum { NO_LIMIT_FROM = 5000 /* rows; twice as many is more than a batch has */ };

int channels_new(struct channels **out, int64_t rest_min_ms, int64_t rest_max_ms, struct err *err)
{
    struct channels *channels = calloc(1, sizeof *channels);
    if (!channels) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    (void)pthread_mutex_init(&channels->lock, NULL);
    backoff_init(&channels->backoff, rest_min_ms, rest_max_ms);
    channels->newcomers = NEWCOMERS_FIRST;
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
    bool held = channel->in_turn || channel->trying || channel_is_on_hold(channel, now_ms);
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

bool channels_confirmed(struct channels *channels, struct bytes name, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find_or_add(channels, name, now_ms);
    bool news = channel && channel->told && channel->rests_until_ms <= now_ms;
    if (channel) {
        channels->newcomers_answered += channel_is_new(channel);
        channel->confirmed_ms = now_ms;
        channel->holds = 0;
        channel->refusals = 0;
        channel->isolated = false;
        channel->trying = 0;
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

/* ---- crowds ---- */

/* CROWD_SHARE: a channel with more than one in so many of the rows of a full claim crowds (OTHERS_SHARE: of
 * one for the others), or with more than one in BYTES_SHARE of its bytes where that is much. It does so for
 * CROWD_MS, twice as long when an ordinary claim finds it again, and again: who does not any more is one of
 * the others soon. OTHERS_MS: likewise in vain, but where others
 * have worked in the last WORKED_MS not longer than OTHERS_LOOK times what the look took, or
 * OTHERS_SOON_MS; OTHERS_REST: so many times its own length is for ordinary claims. */
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
    for (size_t keyed = 0; keyed < 2; keyed++) {
        struct others *others = &channels->others[keyed];
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

/* Neighbours are often of one channel. NULL if it is not known, and there is no room for those that have
 * neither worked nor failed: what is remembered of the others is worth more. */
static struct channel *find_next(struct channels *channels, const struct row *row, struct channel *last,
                                 int64_t now_ms)
{
    struct bytes name = row_channel(row);
    if (last && bytes_equal(channel_name(last), name)) {
        return last;
    }
    return channels->count < MAX_CROWDS ? channels_find_or_add(channels, name, now_ms)
                                        : channels_find(channels, name);
}

static uint64_t count_shares(struct channels *channels, const struct batch *batch, int64_t now_ms)
{
    uint64_t bytes = 0;
    struct channel *channel = NULL;
    channels->full_claims++;
    for (size_t at = 0; at < batch->count; at++) {
        channel = find_next(channels, &batch->rows[at], channel, now_ms);
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

/* Is it one of those newcomers that may be tried in this batch? Who is not known, and has no place, counts
 * with each row. */
static bool may_be_tried(struct channels *channels, struct channel *channel, size_t *tried)
{
    bool counted = channel && channel->tried_in == channels->newcomer_batches;
    if (counted || *tried == channels->newcomers) {
        return counted;
    }
    *tried += 1;
    if (channel) {
        channel->tried_in = channels->newcomer_batches;
    }
    return true;
}

void channels_answered(struct channels *channels, struct bytes name)
{
    (void)pthread_mutex_lock(&channels->lock);
    channels->newcomers_answered += channel_is_new(channels_find(channels, name));
    (void)pthread_mutex_unlock(&channels->lock);
}

static void judge_newcomers(struct channels *channels)
{
    size_t half = channels->newcomers / 2;
    size_t more = channels->newcomers + channels->newcomers_answered;
    if (channels->newcomers_failed > channels->newcomers_answered) {
        channels->newcomers = half > NEWCOMERS_MIN ? half : NEWCOMERS_MIN;
    } else {
        channels->newcomers = more < NEWCOMERS_MAX ? more : NEWCOMERS_MAX;
    }
    channels->newcomers_failed = channels->newcomers_answered = 0;
}

bool channels_postpone_newcomers(struct channels *channels, struct batch *batch, int64_t now_ms)
{
    size_t tried = 0;
    bool any = false;
    struct channel *channel = NULL;
    (void)pthread_mutex_lock(&channels->lock);
    judge_newcomers(channels);
    channels->newcomer_batches += batch->count > channels->newcomers;
    for (size_t at = 0; at < batch->count && batch->count > channels->newcomers; at++) {
        struct row *row = &batch->rows[at];
        channel = find_next(channels, row, channel, now_ms);
        bool asks = row->entry == 0 && row->verdict == OUTBOX_UNSETTLED;
        if (asks && channel_is_new(channel) && !may_be_tried(channels, channel, &tried)) {
            row->postponed = any = true;
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return any;
}

/* Not when it does so again, a moment later. */
static bool begins_to_crowd(const struct channels *channels, int64_t now_ms)
{
    return channels->last_crowd_ends_ms == 0 || now_ms - channels->last_crowd_ends_ms >= WORKED_MS;
}

void channels_see_newcomers(struct channels *channels, bool keyed, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool began = begins_to_crowd(channels, now_ms);
    channels->newcomers_until_ms = now_ms + CROWD_MS;
    if (channels->newcomers_until_ms > channels->last_crowd_ends_ms) {
        channels->last_crowd_ends_ms = channels->newcomers_until_ms;
    }
    channels->others[keyed].next = true;
    if (began) {
        expect_others(channels, now_ms);
    }
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_see_full(struct channels *channels, const struct batch *batch, bool keyed, bool for_others,
                       int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool began = begins_to_crowd(channels, now_ms);
    uint64_t bytes = count_shares(channels, batch, now_ms);
    struct channel *channel = NULL;
    for (size_t at = 0; at < batch->count; at++) {
        channel = find_next(channels, &batch->rows[at], channel, now_ms);
        if (channel && channel->seen == channels->full_claims &&
            has_too_much(channel, for_others ? OTHERS_SHARE : CROWD_SHARE, batch->count, bytes)) {
            channel->seen = 0; /* once is enough */
            crowd(channels, channel, for_others, now_ms);
        }
    }
    channels->others[keyed].next = channels->others[keyed].next || !for_others;
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
static int64_t rest_of(const struct channels *channels, int64_t bound_ms, int64_t now_ms)
{
    int64_t took_ms = now_ms - channels->others_began_ms;
    int64_t rest_ms = took_ms > OTHERS_QUICK_MS ? OTHERS_REST * took_ms : 0;
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
    struct others *others = &channels->others[channels->others_keyed];
    channels->others_on = false;
    channels->others_came_ms = rows > 0 ? now_ms : channels->others_came_ms;
    channels->others_at_ms = now_ms + rest_of(channels, OTHERS_BOUND_MS, now_ms);
    others->at_ms = rows > 0 ? now_ms : now_ms + wait_in_vain(channels, others, now_ms);
    others->in_vain = rows > 0 ? 0 : others->in_vain + (others->in_vain < OTHERS_DOUBLINGS);
    (void)pthread_mutex_unlock(&channels->lock);
}

void channels_others_failed(struct channels *channels, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    channels->others_on = false;
    channels->others_at_ms = now_ms + rest_of(channels, OTHERS_FAILED_MS, now_ms);
    (void)pthread_mutex_unlock(&channels->lock);
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
