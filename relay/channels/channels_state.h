/*
 * channels_state - what is known of each channel, the table of them, and the steps that live in files of
 * their own. For this room only.
 *
 * Everything here is read and written under the lock.
 */
#ifndef RELAY_CHANNELS_STATE_H
#define RELAY_CHANNELS_STATE_H

#include <pthread.h>

#include "base/backoff.h"
#include "channels/channels.h"

/* MAX_RESTING: fewer than it remembers, so that bad channels, however many, leave room for the evidence of
 * good ones; what has none, and does not rest, is forgotten first. */
enum {
    BUCKETS = 4096,
    MAX_CHANNELS = 65536,
    MAX_RESTING = 49152,
    MAX_CROWDS = 16384, /* above, who is only seen in a full claim is not remembered for that */
    NEWCOMERS_MIN = 16, /* tried in one batch */
    NEWCOMERS_FIRST = 64,
    NEWCOMERS_MAX = 1024,
    NEWCOMERS_SHARE = 4, /* ordinary claims where they crowd: so many times what is tried */
    WORKED_MS = 10000,   /* lately */
    REMEMBERED_TRIES = 256,
    TURN_MAX = 64
};

struct channel {
    struct channel *next; /* in its bucket */
    int64_t confirmed_ms; /* last confirm; -1 = none */
    int64_t rests_until_ms;
    unsigned holds;        /* in a row */
    unsigned refusals;     /* since the last confirm */
    size_t allowance;      /* rows in flight in one batch; 0 = no limit */
    char *reason;          /* of its last rest */
    int64_t told_ms;       /* when a rest was last told; -1 = never */
    unsigned untold;       /* rests since then */
    bool told;             /* the rest that it is in, or comes from, was */
    bool isolated;         /* a message of it cost a session, and none was confirmed since */
    bool other;            /* ... and since then it rested for another reason */
    bool in_turn;          /* its turn is on, and the claim has not answered */
    unsigned trying;       /* the turn that has rows of it in hand; 0 = none */
    bool owed;             /* its turn came, and the batch was full before it: the next is its own */
    bool waived;           /* its last rest was for what may be one message's own fault */
    bool passed;           /* its turns brought nothing: claimed like any other until it is held again */
    unsigned in_vain;      /* turns that brought nothing, since its last rest */
    int64_t took_long_ms;  /* when a batch last had to wait for it, and not for others; 0 = never */
    int64_t slow_until_ms; /* claimed in turns only */
    int64_t retries_rest_until_ms; /* its retries are left out */
    int64_t crowds_until_ms;       /* left out of claims for the others until then, or of every other one */
    unsigned crowded;              /* how often in a row it was found to crowd */
    unsigned seen;                 /* the full claim in which `rows` and `bytes` were counted */
    unsigned tried_in;             /* the batch in which it was tried as a newcomer */
    size_t rows;
    uint64_t bytes;
    size_t name_len;
    char name[];
};

struct attempt {
    int64_t seq;
    int64_t at_ms;
};

/* Its hash outlives it. */
struct quick {
    uint64_t who;
    int64_t at_ms;
};

struct others {
    bool next;        /* the next claim of this kind is theirs */
    bool all;         /* where it is by name, it names those that crowd, too: every other one does */
    unsigned in_vain; /* those that brought nothing, in a row */
    int64_t at_ms;    /* none is theirs before it */
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
    unsigned group_holds;          /* in a row */
    bool limited;                  /* a channel has had an allowance */
    bool isolates;                 /* one was isolated, ever */
    bool any_on_hold;              /* when they were last listed, or since */
    struct quick quick[2];         /* the last two that are not slow and were confirmed */
    int64_t slow_retries_until_ms; /* retries have taken long, lately */
    size_t retries_on;             /* claims of retries under way, and turns */
    size_t turns_on;
    size_t asides_max; /* so many of both, that the others have workers, too */
    unsigned turn;     /* which is on; 0 = none */
    unsigned last_turn;
    int64_t turn_began_ms;
    bool turn_is_slow; /* some of it are */
    int64_t next_turn_ms;
    bool turn_of_proven; /* the next: they alternate with those of which nothing was ever confirmed */
    size_t turn_from[2]; /* buckets, of the unproven and of the proven */
    size_t in_turn_count;
    struct channel *in_turn[TURN_MAX]; /* until the claim has answered */
    struct attempt tries[REMEMBERED_TRIES];
    size_t next_try;
    size_t working_from; /* bucket */
    unsigned full_claims;
    int64_t last_crowd_ends_ms; /* nobody crowds after it */
    size_t newcomers;           /* so many may be tried in one batch */
    size_t newcomers_failed;    /* since that was last looked at */
    size_t newcomers_answered;
    unsigned newcomer_batches;
    int64_t newcomers_until_ms; /* they crowd until then */
    struct others others[ROWS_KINDS];
    bool others_on;                 /* a claim for the others is under way */
    enum channels_rows others_rows; /* of which rows */
    int64_t others_began_ms;
    int64_t others_at_ms;   /* no claim is theirs before it */
    int64_t others_came_ms; /* when one last brought something; 0 = never */
    int64_t whole_ms;       /* what a full batch last took, and a fourth of one; 0 = not known */
    int64_t part_ms;
    int64_t part_at_ms; /* when that was */
};

/* Nothing is known of it. */
static inline bool channel_is_new(const struct channel *channel)
{
    return !channel || (channel->confirmed_ms < 0 && channel->holds == 0);
}

/* It rests, or waits for its turn to be tried again. */
static inline bool channel_is_on_hold(const struct channel *channel, int64_t now_ms)
{
    return channel->rests_until_ms > now_ms || (channel->holds > 0 && !channel->passed);
}

static inline struct bytes channel_name(const struct channel *channel)
{
    return (struct bytes){channel->name, channel->name_len};
}

/* Slow beside others that are not: where all are, or it is alone, none is. */
static inline bool channel_is_slow(const struct channels *channels, const struct channel *channel,
                                   int64_t now_ms)
{
    if (channel->slow_until_ms <= now_ms) {
        return false;
    }
    uint64_t self = bytes_hash(channel_name(channel));
    const struct quick *other = &channels->quick[channels->quick[0].who == self];
    return now_ms - other->at_ms < WORKED_MS;
}

/* No other turn may begin, so that there are workers for all else. */
static inline bool channels_asides_are_full(const struct channels *channels, int64_t now_ms)
{
    bool slow = channels->slow_retries_until_ms > now_ms;
    return channels->turns_on + (slow ? channels->retries_on : 0) >= channels->asides_max;
}

/* Ordinary claims leave it out. */
static inline bool channel_is_apart(const struct channels *channels, const struct channel *channel,
                                    int64_t now_ms)
{
    return channel_is_on_hold(channel, now_ms) || channel_is_slow(channels, channel, now_ms);
}

/* ---- channels.c ---- */

struct channel *channels_find(struct channels *channels, struct bytes name);

/* NULL when memory is short, or when more channels rest than we care to know. */
struct channel *channels_find_or_add(struct channels *channels, struct bytes name, int64_t now_ms);

/* Of a batch's next row, when `last` is that of the row before it: neighbours are often of one channel. NULL
 * if it is not known, and there is no room for those that have neither worked nor failed: what is remembered
 * of the others is worth more. */
struct channel *channels_find_next(struct channels *channels, const struct row *row, struct channel *last,
                                   int64_t now_ms);

/* ---- channels_lists.c: text[] literals; "{}" also where memory is short: half a literal is none ---- */

enum listed {
    LIST_RESTING,
    LIST_RETRIES_REST,
    LIST_ON_HOLD,
    LIST_ON_HOLD_BUT_TURN,
    LIST_ON_HOLD_AND_CROWDS,
    LIST_RETRIES_REST_AND_CROWDS
};

/* When the first of them may be tried: see channels_on_hold(). */
int64_t channels_list(struct channels *channels, enum listed what, int64_t now_ms, struct text *out);

/* Those that have worked: and do not rest; and are not on hold, with and without those that crowd. */
enum named { NAME_AWAKE, NAME_FREE, NAME_FREE_BUT_CROWDS };

/* How many; the same ones in the same order where all find room: the mark of such claims is worth something
 * then. Else each has its turn. */
size_t channels_list_named(struct channels *channels, enum named what, int64_t now_ms, struct text *out);

/* Those whose turn it is. */
bool channels_list_turn(const struct channels *channels, struct text *out);

void channels_list_nobody(struct text *out);

/* When the next turn may begin. While a group rests, there is none: what works is claimed by its name. */
int64_t channels_next_turn(const struct channels *channels, int64_t now_ms);

#endif
