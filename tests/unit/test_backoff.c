#include <criterion/criterion.h>

#include "base/backoff.h"

Test(backoff, waits_stay_between_half_the_minimum_and_the_doubled_ceiling)
{
    struct backoff backoff;
    backoff_init(&backoff, 1000, 60000);
    int64_t ceiling_ms = 1000;
    for (int failure = 1; failure <= 20; failure++) {
        for (int draw = 0; draw < 200; draw++) {
            int64_t wait_ms = backoff_for_ms(&backoff, (unsigned)failure);
            cr_assert(wait_ms >= 500 && wait_ms <= ceiling_ms, "failure %d waits %lld", failure,
                      (long long)wait_ms);
        }
        ceiling_ms = ceiling_ms * 2 > 60000 ? 60000 : ceiling_ms * 2;
    }
}

Test(backoff, waits_are_spread_over_the_whole_span)
{
    struct backoff backoff;
    backoff_init(&backoff, 1000, 60000);
    int low = 0;
    int high = 0;
    for (int draw = 0; draw < 1000; draw++) {
        int64_t wait_ms = backoff_for_ms(&backoff, 10);
        low += wait_ms < 20000;
        high += wait_ms > 40000;
    }
    cr_expect(low > 200 && high > 200, "%d low, %d high of 1000", low, high);
}

Test(backoff, a_success_starts_anew)
{
    struct backoff backoff;
    backoff_init(&backoff, 100, 100000);
    for (int failure = 0; failure < 10; failure++) {
        (void)backoff_next_ms(&backoff);
    }
    backoff_reset(&backoff);
    cr_expect(backoff_next_ms(&backoff) <= 100);
}

Test(backoff, without_a_count_a_wait_grows_from_the_last_one)
{
    struct backoff backoff;
    backoff_init(&backoff, 1000, 60000);
    for (int draw = 0; draw < 200; draw++) {
        int64_t wait_ms = backoff_after_ms(&backoff, 3000);
        cr_assert(wait_ms >= 3000 && wait_ms <= 6000, "%lld", (long long)wait_ms);
        wait_ms = backoff_after_ms(&backoff, 50000);
        cr_assert(wait_ms >= 30000 && wait_ms <= 60000, "%lld", (long long)wait_ms);
        cr_assert(backoff_after_ms(&backoff, INT64_MAX) <= 60000);
    }
}

Test(backoff, absurd_counts_and_bounds_do_not_overflow)
{
    struct backoff backoff;
    backoff_init(&backoff, INT64_MAX / 3, INT64_MAX / 2);
    cr_expect(backoff_for_ms(&backoff, 4000000000u) > 0);
    backoff_init(&backoff, 5000, 10); /* a maximum below the minimum is the minimum */
    cr_expect(backoff_for_ms(&backoff, 9) <= 5000);
}
