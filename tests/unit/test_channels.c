#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "channels/channels.h"

static struct channels *channels;
static struct text resting;
static struct text only;
static struct channel_news news;

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(channels_new(&channels, 4, 1000, 60000, &err), 0);
    text_init(&resting, 8 << 20);
    text_init(&only, 8 << 20);
}

static void teardown(void)
{
    channels_free(channels);
    text_finish(&resting);
    text_finish(&only);
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
}

Test(channels, a_rest_for_another_reason_is_told_sooner_but_not_in_ever_other_words)
{
    char reason[32];
    int told = 0;
    cr_expect(hold(bytes_of("a"), "full", 10, 0) && news.tell);
    for (int64_t now_ms = 100; now_ms < 60000; now_ms += 1000) {
        (void)snprintf(reason, sizeof reason, "request %lld", (long long)now_ms);
        cr_assert(hold(bytes_of("a"), reason, 10, now_ms));
        told += news.tell;
        cr_assert(!news.tell || (news.again >= 9 && news.again <= 10), "%u at %lld", news.again,
                  (long long)now_ms);
    }
    cr_expect_eq(told, 5, "%d times in a minute", told);
}

Test(channels, the_end_of_a_rest_that_was_told_is_news_once)
{
    cr_expect(!channels_confirmed(channels, bytes_of("a"), 0));
    cr_expect(hold(bytes_of("a"), "full", 1000, 10));
    cr_expect(!channels_confirmed(channels, bytes_of("a"), 500), "its rest is not over");
    cr_expect(channels_confirmed(channels, bytes_of("a"), 1500));
    cr_expect(!channels_confirmed(channels, bytes_of("a"), 1501));
}

static size_t allowance(const char *channel)
{
    unsigned holds = 0;
    return channels_allowance(channels, bytes_of(channel), &holds);
}

static unsigned holds_of(const char *channel)
{
    unsigned holds = 0;
    cr_expect_eq(channels_allowance(channels, bytes_of(channel), &holds), SIZE_MAX);
    return holds;
}

Test(channels, how_often_one_was_at_a_wall_is_known_until_its_next_confirm)
{
    cr_expect_eq(holds_of("a"), 0);
    cr_expect(hold(bytes_of("a"), "full", 10, 0));
    cr_expect(hold(bytes_of("a"), "full", 10, 20));
    cr_expect_eq(holds_of("a"), 2);
    cr_expect_eq(holds_of("b"), 0);
    channels_waive_turn(channels, bytes_of("a"));
    cr_expect_eq(holds_of("a"), 0, "its messages are to tell whose fault it is");
    cr_expect(hold(bytes_of("a"), "full", 10, 40));
    cr_expect_eq(holds_of("a"), 3);
    (void)channels_confirmed(channels, bytes_of("a"), 60);
    cr_expect_eq(holds_of("a"), 0);
}

Test(channels, of_which_some_rows_were_too_many_go_on_at_half_and_grow_back)
{
    channels_confirmed(channels, bytes_of("a"), 0);
    cr_expect_eq(allowance("a"), SIZE_MAX);
    channels_halve(channels, bytes_of("a"), 500);
    cr_expect_eq(allowance("a"), 250);
    cr_expect_eq(allowance("b"), SIZE_MAX);
    channels_halve(channels, bytes_of("a"), 500);
    cr_expect_eq(allowance("a"), 125, "of what was in flight at once");
    channels_halve(channels, bytes_of("a"), 1);
    cr_expect_eq(allowance("a"), 1, "never nothing");
    for (int batch = 0; batch < 14; batch++) {
        channels_grow(channels, bytes_of("a"));
    }
    cr_expect_eq(allowance("a"), SIZE_MAX);
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
    cr_expect_str_eq(text_get(&resting), "{\"go_d%\"}");
}

Test(channels, that_worked_have_their_turn_where_there_are_many)
{
    char name[32];
    for (int number = 0; number < 12000; number++) {
        (void)snprintf(name, sizeof name, "good-%d", number);
        channels_confirmed(channels, bytes_of(name), 1);
    }
    bool seen = false;
    for (int answer = 0; answer < 10 && !seen; answer++) {
        channels_working(channels, 2, &resting);
        cr_expect(resting.len < 60000, "not all at once");
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

/* ---- turns ---- */

static struct batch claimed;

/* Tells what the claim of a turn brought: a row of each of these channels, up to NULL. */
static void answer(unsigned turn, enum turn_view view, const char *const *names)
{
    struct err err = {0};
    cr_assert_eq(batch_init(&claimed, 100, &err), 0);
    for (; *names; names++) {
        batch_add(&claimed)->message.channel = (struct outbox_bytes){*names, strlen(*names)};
    }
    channels_turn_claimed(channels, turn, &claimed, view);
    batch_finish(&claimed);
}

static const char *const NO_ROWS[] = {NULL};
static const char *const A_ROW_OF_A[] = {"a", NULL};

static bool is_on_hold(const char *name, int64_t now_ms)
{
    char quoted[40];
    (void)snprintf(quoted, sizeof quoted, "\"%s\"", name);
    (void)channels_on_hold(channels, now_ms, &resting);
    return strstr(text_get(&resting), quoted) != NULL;
}

/* Of a turn that begins now. */
static unsigned take(int64_t now_ms)
{
    unsigned turn = channels_take_turn(channels, now_ms, &resting, &only);
    cr_assert(turn, "no turn at %lld", (long long)now_ms);
    return turn;
}

Test(channels, whose_rest_is_over_are_on_hold_until_their_turn)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    cr_expect_eq(channels_on_hold(channels, 999, &resting), 1000);
    cr_expect(!channels_take_turn(channels, 999, &resting, &only), "it rests");
    cr_expect_eq(channels_on_hold(channels, 1000, &resting), 1000, "it may be tried at once");
    cr_expect_str_eq(text_get(&resting), "{\"a\"}");
    take(1000);
    cr_expect_str_eq(text_get(&resting), "{}", "it is claimed in this turn");
    cr_expect(!channels_take_turn(channels, 1000, &resting, &only), "one turn at a time");
    cr_expect(is_on_hold("a", 1000), "nobody else claims it");
}

Test(channels, of_which_a_turn_brought_a_row_stay_on_hold_until_a_confirm)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    unsigned turn = take(1000);
    answer(turn, TURN_WHOLE, A_ROW_OF_A);
    channels_end_turn(channels, turn, 1000);
    cr_expect_eq(channels_on_hold(channels, 1000, &resting), 1000);
    cr_expect(hold(bytes_of("a"), "x", 1000, 1000), "it rests again");
    channels_confirmed(channels, bytes_of("a"), 2500);
    cr_expect_eq(channels_on_hold(channels, 2500, &resting), CLOCK_NEVER_MS);
    cr_expect_str_eq(text_get(&resting), "{}");
}

Test(channels, of_which_a_turn_brought_nothing_are_on_hold_no_more)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    unsigned turn = take(1000);
    answer(turn, TURN_WHOLE, NO_ROWS);
    channels_end_turn(channels, turn, 1000);
    cr_expect(!is_on_hold("a", 1000));
    cr_expect(hold(bytes_of("a"), "x", 1000, 1000));
    cr_expect(is_on_hold("a", 3000));
}

Test(channels, of_which_turns_saw_a_part_are_on_hold_until_many_brought_nothing)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    int turns = 0;
    for (; is_on_hold("a", 1000); turns++) {
        unsigned turn = take(1000);
        answer(turn, TURN_PART, NO_ROWS);
        channels_end_turn(channels, turn, 1000);
        cr_assert(turns < 100);
    }
    cr_expect_eq(turns, 16);
}

Test(channels, that_a_full_batch_did_not_reach_have_the_next_turn_for_themselves)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    cr_expect(hold(bytes_of("b"), "x", 1000, 0));
    unsigned turn = take(1000);
    cr_expect_str_eq(text_get(&resting), "{}");
    answer(turn, TURN_CUT, A_ROW_OF_A);
    channels_end_turn(channels, turn, 1000);
    cr_expect(is_on_hold("a", 1000) && is_on_hold("b", 1000));
    take(1000);
    cr_expect_str_eq(text_get(&resting), "{\"a\"}");
}

Test(channels, a_turn_whose_claim_failed_says_nothing)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    channels_end_turn(channels, take(1000), 1000);
    cr_expect_eq(channels_on_hold(channels, 1000, &resting), 1000);
    cr_expect_str_eq(text_get(&resting), "{\"a\"}");
}

Test(channels, after_a_turn_four_times_its_length_is_for_the_others)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    unsigned turn = take(1000);
    answer(turn, TURN_WHOLE, A_ROW_OF_A);
    channels_end_turn(channels, turn, 1100);
    cr_expect(!channels_take_turn(channels, 1499, &resting, &only));
    cr_expect_eq(channels_on_hold(channels, 1499, &resting), 1500);
    turn = take(1500);
    answer(turn, TURN_WHOLE, A_ROW_OF_A);
    channels_end_turn(channels, turn, 3400);
    cr_expect_eq(channels_on_hold(channels, 3400, &resting), 5400, "and no more than two seconds");
}

Test(channels, a_turn_that_lasts_holds_up_nobody_but_whom_it_tries)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    cr_expect(hold(bytes_of("b"), "x", 1500, 0));
    unsigned lasting = take(1000);
    answer(lasting, TURN_WHOLE, A_ROW_OF_A);
    cr_expect(!channels_take_turn(channels, 2999, &resting, &only));
    unsigned other = take(3000);
    cr_expect_str_eq(text_get(&resting), "{\"a\"}", "which is being tried");
    answer(other, TURN_WHOLE, NO_ROWS);
    channels_end_turn(channels, other, 3000);
    cr_expect_eq(channels_on_hold(channels, 3000, &resting), CLOCK_NEVER_MS, "nobody else waits");
    channels_end_turn(channels, lasting, 9000);
    cr_expect_eq(channels_on_hold(channels, 9000, &resting), 9000);
}

Test(channels, of_many_that_wait_each_has_its_turn)
{
    static bool tried[1000];
    char name[32];
    for (int number = 0; number < 1000; number++) {
        (void)snprintf(name, sizeof name, "bad-%d", number);
        cr_assert(hold(bytes_of(name), "404", 1000, 0));
    }
    int turns = 0;
    int met = 0;
    for (; turns < 40 && met < 1000; turns++) {
        int in_turn = 0;
        unsigned turn = take(2000);
        for (int number = 0; number < 1000; number++) {
            (void)snprintf(name, sizeof name, "\"bad-%d\"", number);
            bool left_out = strstr(text_get(&resting), name) != NULL;
            in_turn += !left_out;
            met += !left_out && !tried[number];
            tried[number] = tried[number] || !left_out;
        }
        cr_assert(in_turn > 0 && in_turn <= 64, "%d at once", in_turn);
        channels_end_turn(channels, turn, 2000);
    }
    cr_expect_eq(met, 1000, "%d in %d turns", met, turns);
}

Test(channels, one_that_has_worked_does_not_wait_behind_thousands_that_never_did)
{
    char name[32];
    channels_confirmed(channels, bytes_of("good"), 0);
    cr_assert(hold(bytes_of("good"), "429", 1000, 1));
    for (int number = 0; number < 1000; number++) {
        (void)snprintf(name, sizeof name, "bad-%d", number);
        cr_assert(hold(bytes_of(name), "404", 1000, 1));
    }
    bool met = false;
    for (int turns = 0; turns < 2; turns++) {
        unsigned turn = take(2000);
        met = met || !strstr(text_get(&resting), "\"good\"");
        channels_end_turn(channels, turn, 2000);
    }
    cr_expect(met);
}

Test(channels, have_no_turn_while_a_group_rests)
{
    char name[32];
    for (int number = 0; number < 60000; number++) {
        (void)snprintf(name, sizeof name, "bad-%d", number);
        (void)hold(bytes_of(name), "404", 1000, 0);
    }
    cr_assert(channels_group_rests(channels, 100));
    int64_t try_ms = channels_on_hold(channels, 1, &resting);
    cr_expect(!channels_take_turn(channels, try_ms - 1, &resting, &only));
}

Test(channels, that_wait_are_remembered_and_counted_as_those_that_rest)
{
    char name[32];
    channels_confirmed(channels, bytes_of("good"), 0);
    for (int number = 0; number < 70000; number++) {
        (void)snprintf(name, sizeof name, "bad-%d", number);
        (void)hold(bytes_of(name), "404", 1000, number);
    }
    cr_expect(channels_group_rests(channels, 70000), "although most rests are over");
    channels_working(channels, 70000, &resting);
    cr_expect_str_eq(text_get(&resting), "{\"good\"}");
}

Test(channels, a_try_is_owed_when_a_rest_has_ended_in_time)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    cr_expect(!channels_owe_a_try(channels, 5000, 999));
    cr_expect(channels_owe_a_try(channels, 5000, 1000));
    cr_expect(!channels_owe_a_try(channels, 999, 1000), "it ended too late");
    cr_expect(hold(bytes_of("a"), "x", 1000, 1000), "it was tried");
    cr_expect(!channels_owe_a_try(channels, 5000, 1001));
}

Test(channels, that_rested_for_a_refusal_need_no_turn)
{
    cr_expect(hold(bytes_of("a"), "x", 1000, 0));
    channels_waive_turn(channels, bytes_of("a"));
    cr_expect(is_on_hold("a", 999), "it rests");
    cr_expect(!is_on_hold("a", 1000), "its messages tell which of them it is");
    cr_expect(hold(bytes_of("a"), "x", 1000, 1000));
    cr_expect(is_on_hold("a", 2000));
}
