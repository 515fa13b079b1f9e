/*
 * backoff - how long to wait before the next try: full jitter, random(0, min(max, min * 2^n)).
 * Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
 */
#ifndef RELAY_BACKOFF_H
#define RELAY_BACKOFF_H

#include <stdint.h>

struct backoff {
    int64_t min_ms;
    int64_t max_ms;
    unsigned failures;
    uint64_t random_state;
};

void backoff_init(struct backoff *backoff, int64_t min_ms, int64_t max_ms);

/* Counts a failure; the wait in ms, at least min_ms/2 (never a hot loop), at most max_ms. */
int64_t backoff_next_ms(struct backoff *backoff);

void backoff_reset(struct backoff *backoff);

/* The same for a count that somebody else keeps (attempts of a row). */
int64_t backoff_for_ms(struct backoff *backoff, unsigned failures);

/* Where nobody keeps a count: after a wait of last_ms, between that and twice that, at most max_ms. */
int64_t backoff_after_ms(struct backoff *backoff, int64_t last_ms);

#endif
