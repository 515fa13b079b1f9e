#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "machine/channels.h"

static struct channels *channels;
static struct text resting;
static struct channel_news news;

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

static bool hold(struct bytes channel, const char *reason, int64_t retry_after_ms, int64_t now_ms)
{
    return channels_hold(channels, channel, reason, retry_after_ms, now_ms, &news);
}

/* What is known of the only row of a batch. */
static struct row recall(const char *channel, int64_t seq)
{
    struct batch batch;
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 1, &err), 0);
    struct row *row = batch_add(&batch);
    row->message.channel = (struct outbox_bytes){channel, strlen(channel)};
    row->message.seq = seq;
    channels_recall(channels, &batch, 0);
    struct row copy = *row;
    batch_finish(&batch);
    return copy;
}

TestSuite(channels, .init = setup, .fini = teardown);

Test(channels, a_held_channel_rests_and_is_listed_as_an_array_literal)
{
    cr_expect_eq(channels_resting(channels, 0, &resting), CLOCK_NEVER_MS);
    cr_expect_str_eq(text_get(&resting), "{}");
    cr_expect(hold(bytes_of("or\"ders"), "404", 5000, 100));
    cr_expect_eq(channels_resting(channels, 101, &resting), 5100);
    cr_expect_str_eq(text_get(&resting), "{\"or\\\"ders\"}");
    cr_expect_eq(channels_resting(channels, 5101, &resting), CLOCK_NEVER_MS);
    cr_expect_str_eq(text_get(&resting), "{}");
}

Test(channels, one_rests_until_its_rest_is_over_and_others_do_not)
{
    cr_expect(!channels_rests(channels, bytes_of("a"), 100));
    cr_expect(hold(bytes_of("a"), "x", 5000, 100));
    cr_expect(channels_rests(channels, bytes_of("a"), 5099) && !channels_rests(channels, bytes_of("b"), 101));
    cr_expect(!channels_rests(channels, bytes_of("a"), 5100));
}

Test(channels, holding_a_resting_channel_again_neither_prolongs_nor_repeats_it)
{
    cr_expect(hold(bytes_of("a"), "x", 5000, 0));
    cr_expect(!hold(bytes_of("a"), "y", 50000, 10));
    cr_expect_eq(channels_resting(channels, 11, &resting), 5000);
}

Test(channels, rests_grow_until_a_confirm_ends_the_backoff)
{
    int64_t now_ms = 0;
    int64_t longest_ms = 0;
    for (int times = 0; times < 30; times++) {
        cr_assert(hold(bytes_of("a"), "x", 0, now_ms));
        int64_t end_ms = channels_resting(channels, now_ms, &resting);
        longest_ms = end_ms - now_ms > longest_ms ? end_ms - now_ms : longest_ms;
        now_ms = end_ms;
    }
    cr_expect(longest_ms > 5000 && longest_ms <= 60000, "%lld", (long long)longest_ms);
    channels_confirmed(channels, bytes_of("a"), now_ms);
    cr_expect(hold(bytes_of("a"), "x", 0, now_ms));
    cr_expect(channels_resting(channels, now_ms, &resting) - now_ms <= 1000);
}

Test(channels, evidence_is_the_last_confirm_of_the_same_channel)
{
    channels_confirmed(channels, bytes_of("a"), 500);
    cr_expect_eq(recall("a", 1).known.confirmed_ms, 500);
    cr_expect_eq(recall("b", 1).known.confirmed_ms, -1);
}

Test(channels, remembers_the_last_try_of_a_row)
{
    cr_expect_eq(recall("a", 7).known.tried_ms, -1);
    channels_tried(channels, 7, 100);
    channels_tried(channels, 8, 150);
    channels_tried(channels, 7, 200);
    cr_expect_eq(recall("a", 7).known.tried_ms, 200);
    cr_expect_eq(recall("a", 8).known.tried_ms, 150);
}

Test(channels, forgets_idle_channels_rather_than_grow_without_bound_but_never_a_resting_one)
{
    char name[32];
    cr_assert(hold(bytes_of("resting"), "x", 1000000, 0));
    for (int number = 0; number < 70000; number++) {
        (void)snprintf(name, sizeof name, "channel-%d", number);
        channels_confirmed(channels, bytes_of(name), 1);
    }
    (void)channels_resting(channels, 2, &resting);
    cr_expect_str_eq(text_get(&resting), "{\"resting\"}");
    cr_expect_eq(recall("channel-69999", 1).known.confirmed_ms, 1);
}

Test(channels, the_same_rest_is_told_once_a_minute_with_how_often_it_came_again)
{
    cr_expect(hold(bytes_of("a"), "full", 10, 0) && news.tell && news.again == 0);
    for (int64_t now_ms = 100; now_ms < 60000; now_ms += 1000) {
        cr_assert(hold(bytes_of("a"), "full", 10, now_ms));
        cr_assert(!news.tell, "at %lld", (long long)now_ms);
    }
    cr_expect(hold(bytes_of("a"), "full", 10, 60000) && news.tell);
    cr_expect_eq(news.again, 60);
    cr_expect(hold(bytes_of("a"), "gone", 10, 60100) && news.tell && news.again == 0,
              "another reason is news");
}

Test(channels, the_end_of_a_rest_that_was_told_is_news_once)
{
    cr_expect(!channels_confirmed(channels, bytes_of("a"), 0));
    cr_expect(hold(bytes_of("a"), "full", 1000, 10));
    cr_expect(!channels_confirmed(channels, bytes_of("a"), 500), "its rest is not over");
    cr_expect(channels_confirmed(channels, bytes_of("a"), 1500));
    cr_expect(!channels_confirmed(channels, bytes_of("a"), 1501));
}

Test(channels, of_which_some_rows_were_too_many_go_on_at_half_and_grow_back)
{
    channels_confirmed(channels, bytes_of("a"), 0);
    cr_expect_eq(channels_allowance(channels, bytes_of("a")), SIZE_MAX);
    channels_halve(channels, bytes_of("a"), 500);
    cr_expect_eq(channels_allowance(channels, bytes_of("a")), 250);
    cr_expect_eq(channels_allowance(channels, bytes_of("b")), SIZE_MAX);
    channels_halve(channels, bytes_of("a"), 500);
    cr_expect_eq(channels_allowance(channels, bytes_of("a")), 125, "of what was in flight at once");
    channels_halve(channels, bytes_of("a"), 1);
    cr_expect_eq(channels_allowance(channels, bytes_of("a")), 1, "never nothing");
    for (int batch = 0; batch < 14; batch++) {
        channels_grow(channels, bytes_of("a"));
    }
    cr_expect_eq(channels_allowance(channels, bytes_of("a")), SIZE_MAX);
}

Test(channels, more_than_can_be_remembered_rest_as_a_group_and_those_that_worked_do_not)
{
    char name[32];
    channels_confirmed(channels, bytes_of("go_d%"), 1);
    for (int number = 0; number < 60000; number++) {
        (void)snprintf(name, sizeof name, "bad-%d", number);
        (void)hold(bytes_of(name), "404", 1000000, 200 + number / 100);
    }
    cr_expect(channels_group_rests(channels, 900));
    cr_expect(channels_rests(channels, bytes_of("bad-3"), 900));
    cr_expect(channels_rests(channels, bytes_of("bad-59999"), 900));
    cr_expect(!channels_rests(channels, bytes_of("go_d%"), 900));
    channels_working(channels, 900, &resting);
    cr_expect_str_eq(text_get(&resting), "{\"go\\\\_d\\\\%\"}");
}

Test(channels, that_worked_have_their_turn_where_there_are_many)
{
    char name[32];
    for (int number = 0; number < 1000; number++) {
        (void)snprintf(name, sizeof name, "good-%d", number);
        channels_confirmed(channels, bytes_of(name), 1);
    }
    bool seen = false;
    for (int answer = 0; answer < 10 && !seen; answer++) {
        channels_working(channels, 2, &resting);
        cr_expect(resting.len < 10000, "not all at once");
        seen = strstr(text_get(&resting), "\"good-777\"") != NULL;
    }
    cr_expect(seen, "within a few answers");
}

Test(channels, without_evidence_are_forgotten_first)
{
    char name[32];
    channels_confirmed(channels, bytes_of("good"), 1);
    for (int number = 0; number < 70000; number++) {
        (void)snprintf(name, sizeof name, "unknown-%d", number);
        (void)channels_refused(channels, bytes_of(name), 2);
    }
    channels_working(channels, 3, &resting);
    cr_expect_str_eq(text_get(&resting), "{\"good\"}");
}

Test(channels, those_that_worked_and_rest_are_none_to_probe_with)
{
    channels_confirmed(channels, bytes_of("a"), 1);
    cr_expect(hold(bytes_of("a"), "full", 1000, 10));
    channels_working(channels, 20, &resting);
    cr_expect_str_eq(text_get(&resting), "{}");
}
