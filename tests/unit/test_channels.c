#include <criterion/criterion.h>
#include <stdio.h>

#include "base/clock.h"
#include "machine/channels.h"

static struct channels *channels;
static struct text resting;

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(channels_new(&channels, 1000, 60000, &err), 0);
    text_init(&resting, 65536);
}

static void teardown(void)
{
    channels_free(channels);
    text_finish(&resting);
}

TestSuite(channels, .init = setup, .fini = teardown);

Test(channels, a_held_channel_rests_and_is_listed_as_an_array_literal)
{
    cr_expect_eq(channels_resting(channels, 0, &resting), CLOCK_NEVER_MS);
    cr_expect_str_eq(text_get(&resting), "{}");
    cr_expect(channels_hold(channels, bytes_of("or\"ders"), "404", 5000, 100));
    cr_expect_eq(channels_resting(channels, 101, &resting), 5100);
    cr_expect_str_eq(text_get(&resting), "{\"or\\\"ders\"}");
    cr_expect_eq(channels_resting(channels, 5101, &resting), CLOCK_NEVER_MS);
    cr_expect_str_eq(text_get(&resting), "{}");
}

Test(channels, one_rests_until_its_rest_is_over_and_others_do_not)
{
    cr_expect(!channels_rests(channels, bytes_of("a"), 100));
    cr_expect(channels_hold(channels, bytes_of("a"), "x", 5000, 100));
    cr_expect(channels_rests(channels, bytes_of("a"), 5099) && !channels_rests(channels, bytes_of("b"), 101));
    cr_expect(!channels_rests(channels, bytes_of("a"), 5100));
}

Test(channels, holding_a_resting_channel_again_neither_prolongs_nor_repeats_it)
{
    cr_expect(channels_hold(channels, bytes_of("a"), "x", 5000, 0));
    cr_expect(!channels_hold(channels, bytes_of("a"), "y", 50000, 10));
    cr_expect_eq(channels_resting(channels, 11, &resting), 5000);
}

Test(channels, rests_grow_until_a_confirm_ends_the_backoff)
{
    int64_t now_ms = 0;
    int64_t longest_ms = 0;
    for (int hold = 0; hold < 30; hold++) {
        cr_assert(channels_hold(channels, bytes_of("a"), "x", 0, now_ms));
        int64_t end_ms = channels_resting(channels, now_ms, &resting);
        longest_ms = end_ms - now_ms > longest_ms ? end_ms - now_ms : longest_ms;
        now_ms = end_ms;
    }
    cr_expect(longest_ms > 5000 && longest_ms <= 60000, "%lld", (long long)longest_ms);
    channels_confirmed(channels, bytes_of("a"), now_ms);
    cr_expect(channels_hold(channels, bytes_of("a"), "x", 0, now_ms));
    cr_expect(channels_resting(channels, now_ms, &resting) - now_ms <= 1000);
}

Test(channels, evidence_is_a_confirm_of_the_same_channel_at_or_after_the_time)
{
    channels_confirmed(channels, bytes_of("a"), 500);
    cr_expect(channels_has_evidence(channels, bytes_of("a"), 500));
    cr_expect(!channels_has_evidence(channels, bytes_of("a"), 501));
    cr_expect(!channels_has_evidence(channels, bytes_of("b"), 0));
}

Test(channels, remembers_the_last_try_of_a_row)
{
    cr_expect_eq(channels_last_try(channels, 7), -1);
    channels_tried(channels, 7, 100);
    channels_tried(channels, 8, 150);
    channels_tried(channels, 7, 200);
    cr_expect_eq(channels_last_try(channels, 7), 200);
    cr_expect_eq(channels_last_try(channels, 8), 150);
}

Test(channels, forgets_idle_channels_rather_than_grow_without_bound_but_never_a_resting_one)
{
    char name[32];
    cr_assert(channels_hold(channels, bytes_of("resting"), "x", 1000000, 0));
    for (int number = 0; number < 70000; number++) {
        (void)snprintf(name, sizeof name, "channel-%d", number);
        channels_confirmed(channels, bytes_of(name), 1);
    }
    (void)channels_resting(channels, 2, &resting);
    cr_expect_str_eq(text_get(&resting), "{\"resting\"}");
    cr_expect(channels_has_evidence(channels, bytes_of("channel-69999"), 1));
}
