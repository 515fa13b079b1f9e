/*
 * channels_newcomers - channels of which nothing is known: few are tried at once.
 */
#include "channels/channels_state.h"

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
        channel = channels_find_next(channels, row, channel, now_ms);
        bool asks = row->entry == 0 && row->verdict == OUTBOX_UNSETTLED;
        if (asks && channel_is_new(channel) && !may_be_tried(channels, channel, &tried)) {
            row->postponed = any = true;
        }
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return any;
}
