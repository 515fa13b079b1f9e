/*
 * channels - what this process knows about the channels: which of them rest and why, and the evidence that
 * they work.
 *
 * Bounded: it forgets channels about which there is nothing to remember. Forgotten evidence makes a refusal a
 * HOLD, the safe side. Shared by the workers under a lock of its own; time is handed in.
 */
#ifndef RELAY_CHANNELS_H
#define RELAY_CHANNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct channels;

struct channel_rest {
    const char *channel;
    const char *reason;
    int64_t rests_for_ms; /* from now */
};

int channels_new(struct channels **out, int64_t rest_min_ms, int64_t rest_max_ms, struct err *err) MUST_CHECK;
void channels_free(struct channels *channels); /* accepts NULL */

/* A message of it was confirmed: evidence, and the end of its backoff. */
void channels_confirmed(struct channels *channels, struct bytes channel, int64_t now_ms);

/* Its destination cannot take messages now. True if it did not rest before. retry_after_ms 0 = a backoff. */
bool channels_hold(struct channels *channels, struct bytes channel, const char *reason,
                   int64_t retry_after_ms, int64_t now_ms);

/* Does it rest? */
bool channels_rests(struct channels *channels, struct bytes channel, int64_t now_ms);

/* Was a message of the channel confirmed after `since_ms`? */
bool channels_has_evidence(struct channels *channels, struct bytes channel, int64_t since_ms);

/* A message of it was refused, or cost a session; how often since its last confirm. */
unsigned channels_refused(struct channels *channels, struct bytes channel, int64_t now_ms);

/* When the row was last tried without evidence, as told by channels_tried(); -1 = not known. */
int64_t channels_last_try(struct channels *channels, int64_t seq);
void channels_tried(struct channels *channels, int64_t seq, int64_t now_ms);

/*
 * Writes the resting channels as a text[] literal, "{}" when none rests. The earliest end of a rest, or
 * CLOCK_NEVER_MS. Over the text's maximum, the rest of them is left out, and where memory is short all of
 * them: their rows are claimed and held again. Has to have held "{}" before, so that this always fits.
 */
int64_t channels_resting(struct channels *channels, int64_t now_ms, struct text *out);

/* Calls `see` for each resting channel, under the lock. */
void channels_each_rest(struct channels *channels, int64_t now_ms,
                        void (*see)(void *context, const struct channel_rest *rest), void *context);

#endif
