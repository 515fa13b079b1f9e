/*
 * channels_slow - whose messages take long, and what that may cost the others.
 *
 * A worker is busy until the last message of its batch has an answer: one receiver that takes five seconds
 * for each, and takes it in the end, would have all workers wait for him, batch after batch. So a channel
 * that takes long again and again, beside others that do not, is claimed in turns only; and retries that take
 * long wait for a multiple of that. Both take half of the workers at most.
 */
#include "base/clock.h"
#include "channels/channels_state.h"

/* AGAIN_MS: a broker that stumbles once is no channel's fault. SLOW_FOR_MS: since it was last found so. */
enum {
    AGAIN_MS = 30000,
    SLOW_FOR_MS = 30000,
    RETRIES_REST = 4,
    RETRIES_REST_MAX_MS = 60000,
    SLOW_RETRIES_MS = 60000
};

/* Retries that take long: it has others that are like them. */
static void put_off_retries(struct channels *channels, struct channel *channel, int64_t took_ms,
                            int64_t now_ms)
{
    int64_t rest_ms = RETRIES_REST * took_ms;
    channel->retries_rest_until_ms = now_ms + (rest_ms < RETRIES_REST_MAX_MS ? rest_ms : RETRIES_REST_MAX_MS);
    channels->slow_retries_until_ms = now_ms + SLOW_RETRIES_MS;
}

bool channels_took_long(struct channels *channels, struct bytes name, int64_t took_ms, bool retries,
                        bool its_own, int64_t now_ms)
{
    bool began = false;
    (void)pthread_mutex_lock(&channels->lock);
    struct channel *channel = channels_find_or_add(channels, name, now_ms);
    if (channel && retries) {
        put_off_retries(channels, channel, took_ms, now_ms);
    } else if (channel && (its_own || channel_is_slow(channels, channel, now_ms))) {
        bool known = channel->took_long_ms > 0 && now_ms - channel->took_long_ms < AGAIN_MS;
        /* Else it may be what another worker saw, of one stumble. */
        bool again = known && (now_ms - took_ms >= channel->took_long_ms || channel->slow_until_ms > now_ms);
        began = again && channel->slow_until_ms <= now_ms;
        channel->took_long_ms = known && !again ? channel->took_long_ms : now_ms;
        channel->slow_until_ms = again ? now_ms + SLOW_FOR_MS : channel->slow_until_ms;
        channels->any_on_hold = channels->any_on_hold || again;
    }
    (void)pthread_mutex_unlock(&channels->lock);
    return began;
}

bool channels_begin_retries(struct channels *channels, int64_t now_ms)
{
    (void)pthread_mutex_lock(&channels->lock);
    bool slow = channels->slow_retries_until_ms > now_ms;
    bool may = channels->retries_on + (slow ? channels->turns_on : 0) < channels->asides_max;
    channels->retries_on += may;
    (void)pthread_mutex_unlock(&channels->lock);
    return may;
}

void channels_end_retries(struct channels *channels)
{
    (void)pthread_mutex_lock(&channels->lock);
    channels->retries_on--;
    (void)pthread_mutex_unlock(&channels->lock);
}
