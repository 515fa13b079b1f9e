/*
 * channels - what this process knows about the channels: which of them rest and why, how much of one may be
 * in flight, and the evidence that they work.
 *
 * Bounded: it forgets channels about which there is nothing to remember. Forgotten evidence makes a refusal a
 * HOLD, the safe side. More channels than it can remember rest as a group: then those alone are known to work
 * that it remembers. Shared by the workers under a lock of its own; time is handed in.
 */
#ifndef RELAY_CHANNELS_H
#define RELAY_CHANNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "message/batch.h"

struct channels;

struct channel_rest {
    const char *channel;
    const char *reason;
    int64_t rests_for_ms; /* from now; 0 = it waits for its turn */
};

/* What is worth a line in the log: the same again within a minute is not, nor another reason within 10 s. */
struct channel_news {
    bool tell;
    bool group;     /* all that it cannot remember rest, and not this one alone */
    unsigned again; /* how often a rest was not told since the last time */
};

/* asides: so many workers at most are busy with turns, and so many with retries. */
int channels_new(struct channels **out, size_t asides, int64_t rest_min_ms, int64_t rest_max_ms,
                 struct err *err) MUST_CHECK;
void channels_free(struct channels *channels); /* accepts NULL */

/* A message of it was confirmed: evidence, and the end of its backoff. True if a rest was told, and this is
 * the first confirm since: news. */
bool channels_confirmed(struct channels *channels, struct bytes channel, int64_t now_ms);

/* Its destination cannot take messages now. True if it did not rest before. retry_after_ms 0 = a backoff. */
bool channels_hold(struct channels *channels, struct bytes channel, const char *reason,
                   int64_t retry_after_ms, int64_t now_ms, struct channel_news *news);

/* Its rest was, for the most part, for refusals that may be one message's own: when it is over, it is claimed
 * like any other, by several workers at once, so that its other messages tell. */
void channels_waive_turn(struct channels *channels, struct bytes channel);

/* Does it rest? */
bool channels_rests(struct channels *channels, struct bytes channel, int64_t now_ms);

/* Do those rest that it cannot remember? */
bool channels_group_rests(struct channels *channels, int64_t now_ms);

/* Some of `rows` in flight were too many for it: half of that from now on, doubled with each batch that all
 * goes. */
void channels_halve(struct channels *channels, struct bytes channel, size_t rows);
void channels_grow(struct channels *channels, struct bytes channel);

/* How many of its rows may be in flight in one batch; SIZE_MAX = as many as there are. *holds: how often its
 * destination could take nothing since the last confirm; 0 also where its messages are to tell. */
size_t channels_allowance(struct channels *channels, struct bytes channel, unsigned *holds);

/* A batch had to wait for its messages: the last answer came after took_ms, LONG_MS or more. `retries`: it
 * was a batch of those; `its_own`: most of the batch was quick, or it is much of it. True if it is slow from
 * now on: claimed in turns only, while others work that are not. */
enum { CHANNELS_LONG_MS = 1000 };
bool channels_took_long(struct channels *channels, struct bytes channel, int64_t took_ms, bool retries,
                        bool its_own, int64_t now_ms);

/* May retries be claimed now? Where they have taken long lately, turns count with them. True:
 * channels_end_retries() when the batch is settled, or there is none. */
bool channels_begin_retries(struct channels *channels, int64_t now_ms);
void channels_end_retries(struct channels *channels);

/* What a claim is for: rows of outbox.message without, with a key; retries. */
enum channels_rows { ROWS_UNKEYED, ROWS_KEYED, ROWS_RETRIES, ROWS_KINDS };

/*
 * Crowds: channels whose rows fill full claims. Messages are claimed in the order of their seq, so those of
 * others would wait until all that stand in front are gone, however many one producer has committed. After
 * each full claim that they fill, the next may be for the others, which leaves them out.
 */

/*
 * Newcomers: channels of which nothing is known. To learn that there is no such channel costs round trips, or
 * a timeout: of the newcomers in a batch only some are tried, half as many where most of them failed, and
 * more where most did not; the rows of the rest are postponed. True if there are such rows.
 */
bool channels_postpone_newcomers(struct channels *channels, struct batch *batch, int64_t now_ms);

/* What it said about a message was of that message, and did not cost much: if it is a newcomer, more may be
 * tried. */
void channels_answered(struct channels *channels, struct bytes channel);

/* Rows of an ordinary claim were postponed: newcomers crowd, whoever they are. */
void channels_see_newcomers(struct channels *channels, enum channels_rows rows, int64_t now_ms);

/* A claim came full: who crowds? `for_others`: it left out those that did. */
void channels_see_full(struct channels *channels, const struct batch *batch, enum channels_rows rows,
                       bool for_others, int64_t now_ms);

/* True where this claim is for the others: one at a time, and not at once again after one that brought
 * nothing, or that took long. `left_out` is the list of those on hold and of those that crowd. Where
 * newcomers do, nobody has a list of them: then `only` has the names of those that work, in every other such
 * claim without those that crowd, and `left_out` is "{}"; else it is `only` that is "{}". */
bool channels_take_others(struct channels *channels, enum channels_rows rows, int64_t now_ms,
                          struct text *left_out, struct text *only);

/* It brought so many rows; or it failed, whatever the reason. */
void channels_others_claimed(struct channels *channels, size_t rows, int64_t now_ms);
void channels_others_failed(struct channels *channels, int64_t now_ms);

/* Of the rows of an ordinary claim: a quarter while others keep coming, so that a worker is soon free for
 * them; all where a quarter takes about as long, as with a broker that is far. Where newcomers crowd, a few
 * times as many as are tried of them. */
size_t channels_share(struct channels *channels, size_t rows, int64_t now_ms);

/* An ordinary batch of `rows` out of `most` took so long from its claim on. */
void channels_took(struct channels *channels, size_t rows, size_t most, int64_t took_ms, int64_t now_ms);

/* A message of it cost a session: from now until its next confirm its messages are sent when nothing else is
 * in flight. */
void channels_isolate(struct channels *channels, struct bytes channel);
bool channels_is_isolated(struct channels *channels, struct bytes channel);

/* Fills row->known of all rows that were not confirmed. */
void channels_recall(struct channels *channels, struct batch *batch, int64_t began_ms);

/* A message of it was refused, or cost a session; how often since its last confirm. */
unsigned channels_refused(struct channels *channels, struct bytes channel, int64_t now_ms);

/* The row was tried without evidence: channels_recall() tells when. */
void channels_tried(struct channels *channels, int64_t seq, int64_t now_ms);

/*
 * Writes the resting channels as a text[] literal, "{}" when none rests. The earliest end of a rest, or
 * CLOCK_NEVER_MS. Where memory is short, all are left out: their rows are claimed and held again. Has to have
 * held "{}" before, so that this always fits.
 */
int64_t channels_resting(struct channels *channels, int64_t now_ms, struct text *out);

/* The same of those whose retries are not claimed: they rest, or their retries do. */
void channels_without_retries(struct channels *channels, int64_t now_ms, struct text *out);

/*
 * The same of those on hold: they rest, or their rest is over and nothing of them was confirmed since, so
 * that they wait for their turn; or they are slow, and claimed in turns only. When the first of them may be
 * tried: now, or later; CLOCK_NEVER_MS if that is not known.
 */
int64_t channels_on_hold(struct channels *channels, int64_t now_ms, struct text *out);

/* What a claim in turn saw of the rows that it asked for. */
enum turn_view {
    TURN_UNSEEN, /* nothing: it failed */
    TURN_CUT,    /* the batch was full: there may be more */
    TURN_PART,   /* some of the lanes */
    TURN_WHOLE
};

/*
 * A turn of some of those that wait, of 64 at most: `left_out` is the list of those on hold without them;
 * where newcomers crowd, and would fill its claims, or some of them are slow, `only` has their names instead,
 * as for channels_take_others(). 0, and both as they were, if none waits, if another's turn is on, or if the
 * last was a moment ago: after a turn, four times its length (2 s at most) is for the channels that work,
 * however many others fail. Who took it ends it; after 2 s it is over, ended or not. Channels that have ever
 * worked and those that have not take turns.
 */
unsigned channels_take_turn(struct channels *channels, int64_t now_ms, struct text *left_out,
                            struct text *only);

/* What the claim in turn brought. Channels that a full batch did not reach have the next turn for themselves;
 * of which again and again nothing comes has no rows, as far as can be seen, and is on hold no more. */
void channels_turn_claimed(struct channels *channels, unsigned turn, const struct batch *batch,
                           enum turn_view view);

void channels_end_turn(struct channels *channels, unsigned turn, int64_t now_ms);

/* Has a rest ended by since_ms after which nothing was tried yet? Not while a group rests: there are no turns
 * then. */
bool channels_owe_a_try(struct channels *channels, int64_t since_ms, int64_t now_ms);

/* Writes the names of channels that worked and do not rest as a text[] literal, some thousands at most. "{}"
 * if none is known, or where memory is short. */
void channels_working(struct channels *channels, int64_t now_ms, struct text *out);

/* Calls `see` for each channel on hold, under the lock. */
void channels_each_rest(struct channels *channels, int64_t now_ms,
                        void (*see)(void *context, const struct channel_rest *rest), void *context);

#endif
