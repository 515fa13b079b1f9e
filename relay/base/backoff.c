#include "base/backoff.h"

#include <sys/random.h>
#include <time.h>

#include "base/clock.h"

void backoff_init(struct backoff *backoff, int64_t min_ms, int64_t max_ms)
{
    *backoff = (struct backoff){.min_ms = min_ms, .max_ms = max_ms < min_ms ? min_ms : max_ms};
    if (getrandom(&backoff->random_state, sizeof backoff->random_state, GRND_NONBLOCK) < 0) {
        backoff->random_state = (uint64_t)clock_now_us(); /* early boot: jitter needs no secrecy */
    }
    backoff->random_state |= 1;
}

/* xorshift64*: Vigna 2014. */
static uint64_t next_random(struct backoff *backoff)
{
    uint64_t state = backoff->random_state;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    backoff->random_state = state;
    return state * 0x2545F4914F6CDD1Du;
}

int64_t backoff_for_ms(struct backoff *backoff, unsigned failures)
{
    int64_t ceiling_ms = backoff->min_ms;
    for (unsigned doubled = 1; doubled < failures && ceiling_ms < backoff->max_ms; doubled++) {
        ceiling_ms = ceiling_ms > backoff->max_ms / 2 ? backoff->max_ms : ceiling_ms * 2;
    }
    int64_t floor_ms = backoff->min_ms / 2;
    uint64_t span = (uint64_t)(ceiling_ms - floor_ms) + 1;
    return floor_ms + (int64_t)(next_random(backoff) % span);
}

int64_t backoff_after_ms(struct backoff *backoff, int64_t last_ms)
{
    int64_t floor_ms = last_ms < backoff->max_ms / 2 ? last_ms : backoff->max_ms / 2;
    floor_ms = floor_ms > 0 ? floor_ms : 1;
    return floor_ms + (int64_t)(next_random(backoff) % (uint64_t)floor_ms);
}

int64_t backoff_next_ms(struct backoff *backoff)
{
    if (backoff->failures < 62) {
        backoff->failures++;
    }
    return backoff_for_ms(backoff, backoff->failures);
}

void backoff_reset(struct backoff *backoff)
{
    backoff->failures = 0;
}
