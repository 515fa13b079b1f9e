#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "channels/channels.h"

static struct channels *channels;
static struct text resting;
static struct text only;

static const char *const flood_alone[] = {"flood", NULL};
static const size_t all_rows[] = {500};

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(channels_new(&channels, 4, 1000, 60000, &err), 0);
    text_init(&resting, 1 << 20);
    text_init(&only, 1 << 20);
}

static void teardown(void)
{
    channels_free(channels);
    text_finish(&resting);
    text_finish(&only);
}

TestSuite(crowds, .init = setup, .fini = teardown);

/* A claim of so many rows of each, with a payload of so many bytes. */
static void claimed(bool full, bool for_others, const char *const *names, const size_t *rows, size_t bytes,
                    int64_t now_ms)
{
    static const char payload[1];
    struct batch batch;
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 500, &err), 0);
    for (size_t at = 0; names[at]; at++) {
        for (size_t row = 0; row < rows[at]; row++) {
            struct outbox_message *message = &batch_add(&batch)->message;
            message->channel = (struct outbox_bytes){names[at], strlen(names[at])};
            message->payload = (struct outbox_bytes){payload, bytes};
        }
    }
    if (full) {
        channels_see_full(channels, &batch, false, for_others, now_ms);
    }
    batch_finish(&batch);
}

static bool others(int64_t now_ms, const char *list)
{
    bool theirs = channels_take_others(channels, false, now_ms, &resting, &only);
    if (theirs) {
        cr_expect_str_eq(text_get(&resting), list);
        cr_expect_str_eq(text_get(&only), "{}");
    }
    return theirs;
}

/* Two, in whichever order. */
static bool others_but(int64_t now_ms, const char *one, const char *other)
{
    size_t len = strlen(one) + strlen(other) + strlen("{\"\",\"\"}");
    return channels_take_others(channels, false, now_ms, &resting, &only) && resting.len == len &&
           strstr(text_get(&resting), one) && strstr(text_get(&resting), other);
}

/* Another one has worked: with it a claim for the others is worth its cost. */
static void know(const char *const *names)
{
    (void)channels_confirmed(channels, bytes_of("another"), 1);
    for (size_t at = 0; names[at]; at++) {
        (void)channels_confirmed(channels, bytes_of(names[at]), 1);
    }
}

Test(crowds, after_a_full_claim_of_one_channels_rows_the_next_is_for_the_others)
{
    static const char *const names[] = {"flood", "shop", NULL};
    static const size_t rows[] = {495, 5};
    know(names);
    cr_expect(!others(100, ""));
    claimed(true, false, names, rows, 100, 100);
    cr_expect(others(101, "{\"flood\"}"), "and shop has its share");
    channels_others_claimed(channels, 3, 102);
    cr_expect(!others(110, ""), "one claim of two");
    claimed(true, false, names, rows, 100, 111);
    cr_expect(others(112, "{\"flood\"}"));
}

Test(crowds, one_claim_is_for_the_others_at_a_time_and_a_long_one_rests_as_long_as_it_took)
{
    know(flood_alone);
    claimed(true, false, flood_alone, all_rows, 100, 100);
    cr_assert(others(101, "{\"flood\"}"));
    claimed(true, false, flood_alone, all_rows, 100, 102);
    cr_expect(!others(150, ""), "the first has not been answered");
    channels_others_claimed(channels, 1, 251);
    cr_expect(!others(400, ""));
    cr_expect(others(401, "{\"flood\"}"));
    claimed(true, false, flood_alone, all_rows, 100, 402);
    channels_others_claimed(channels, 0, 551);
    claimed(true, false, flood_alone, all_rows, 100, 1110);
    cr_expect(!others(1150, ""), "four times where it brought nothing");
    cr_expect(others(1151, "{\"flood\"}"));
    claimed(true, false, flood_alone, all_rows, 100, 1152);
    channels_others_failed(channels, 1261); /* after 110 ms */
    claimed(true, false, flood_alone, all_rows, 100, 1401);
    cr_expect(!others(1700, ""));
    claimed(true, false, flood_alone, all_rows, 100, 1701);
    cr_expect(others(1702, "{\"flood\"}"));
}

Test(crowds, rows_with_a_key_and_rows_without_have_claims_for_the_others_of_their_own)
{
    know(flood_alone);
    claimed(true, false, flood_alone, all_rows, 100, 100);
    cr_expect(!channels_take_others(channels, true, 101, &resting, &only));
    cr_expect(channels_take_others(channels, false, 101, &resting, &only));
}

Test(crowds, who_rests_is_left_out_beside_those_that_crowd)
{
    know(flood_alone);
    struct channel_news news;
    cr_expect(channels_hold(channels, bytes_of("held"), "404", 5000, 100, &news));
    claimed(true, false, flood_alone, all_rows, 100, 100);
    cr_assert(channels_take_others(channels, false, 101, &resting, &only));
    cr_expect(strstr(text_get(&resting), "\"held\"") && strstr(text_get(&resting), "\"flood\""));
    (void)channels_on_hold(channels, 102, &resting);
    cr_expect_str_eq(text_get(&resting), "{\"held\"}", "an ordinary claim takes what crowds");
}

Test(crowds, a_claim_for_the_others_that_is_full_tells_who_crowds_and_is_not_followed_by_another)
{
    static const char *const flood[] = {"flood", NULL};
    static const char *const more[] = {"more", NULL};
    static const size_t rows[] = {500};
    know(flood);
    know(more);
    claimed(true, false, flood, rows, 100, 100);
    cr_assert(others(101, "{\"flood\"}"));
    channels_others_claimed(channels, 500, 102);
    claimed(true, true, more, rows, 100, 102);
    cr_expect(!others(110, ""));
    claimed(true, false, flood, rows, 100, 111);
    cr_assert(channels_take_others(channels, false, 112, &resting, &only));
    cr_expect(strstr(text_get(&resting), "\"more\"") && strstr(text_get(&resting), "\"flood\""));
}

/* How many claims for the others come of a full claim each millisecond, if none of them brings anything, and
 * each takes so long. */
static int count_in_vain(int64_t from_ms, int64_t to_ms, int64_t took_ms)
{
    int times = 0;
    for (int64_t now_ms = from_ms; now_ms < to_ms; now_ms++) {
        claimed(true, false, flood_alone, all_rows, 100, now_ms);
        if (channels_take_others(channels, false, now_ms, &resting, &only)) {
            now_ms += took_ms;
            channels_others_claimed(channels, 0, now_ms);
            times++;
        }
    }
    return times;
}

Test(crowds, claims_for_others_that_bring_nothing_come_ever_more_seldom)
{
    know(flood_alone);
    int first = count_in_vain(100, 1100, 0);
    int later = count_in_vain(20000, 30000, 0);
    cr_expect(first >= 20 && first <= 25, "%d", first);
    cr_expect(later >= 6 && later <= 16, "%d", later);
    claimed(true, false, flood_alone, all_rows, 100, 32000);
    cr_assert(channels_take_others(channels, false, 32000, &resting, &only));
    channels_others_claimed(channels, 1, 32000);
    claimed(true, false, flood_alone, all_rows, 100, 32001);
    cr_expect(channels_take_others(channels, false, 32001, &resting, &only),
              "and often when they bring something");
}

Test(crowds, looks_for_others_in_vain_take_a_twentieth_of_the_time_at_most)
{
    know((const char *const[]){"flood", NULL});
    int times = count_in_vain(100, 9100, 20);
    cr_expect(times >= 20 && times <= 28, "%d", times);
}

Test(crowds, what_has_no_key_and_what_has_one_are_looked_for_in_vain_each_by_themselves)
{
    know(flood_alone);
    (void)count_in_vain(100, 1100, 0);
    claimed(true, false, flood_alone, all_rows, 100, 1101);
    bool unkeyed = channels_take_others(channels, false, 1101, &resting, &only);
    channels_see_newcomers(channels, true, 1101);
    cr_expect(!unkeyed && channels_take_others(channels, true, 1101, &resting, &only));
}

Test(crowds, where_nobody_else_has_worked_lately_a_backlog_of_one_channel_is_hardly_interrupted)
{
    int times = count_in_vain(100000, 102000, 0);
    cr_expect(times >= 1 && times <= 2, "%d", times);
}

Test(crowds, one_whose_few_rows_are_large_crowds_too)
{
    static const char *const names[] = {"large", "small", NULL};
    static const size_t rows[] = {3, 3};
    know(names);
    claimed(true, false, names, rows, 100, 100);
    cr_expect(!others(101, ""), "six small rows are nobody's crowd");
    claimed(true, false, names, rows, 1 << 20, 102);
    cr_expect(others_but(103, "large", "small"));
}

Test(crowds, who_crowds_no_more_is_one_of_the_others_soon_and_who_does_again_is_later)
{
    static const char *const names[] = {"flood", NULL};
    static const char *const few[] = {"few", NULL};
    static const size_t rows[] = {500};
    know(names);
    know(few);
    claimed(true, false, names, rows, 100, 1000);
    claimed(true, false, few, rows, 100, 1900);
    cr_expect(others_but(1999, "few", "flood"));
    channels_others_claimed(channels, 1, 1999);
    claimed(true, false, few, rows, 100, 2000); /* it does already */
    cr_expect(others(2001, "{\"few\"}"), "flood has been quiet for a second");
    channels_others_claimed(channels, 1, 2001);
    claimed(true, false, names, rows, 100, 2002);
    claimed(true, false, names, rows, 100, 3990);
    cr_assert(channels_take_others(channels, false, 3991, &resting, &only));
    cr_expect(strstr(text_get(&resting), "\"flood\""), "two seconds the second time");
}

Test(crowds, while_others_keep_coming_a_claim_takes_a_quarter)
{
    know(flood_alone);
    cr_expect_eq(channels_share(channels, 500, 100), 500);
    claimed(true, false, flood_alone, all_rows, 100, 100);
    cr_expect_eq(channels_share(channels, 500, 101), 500, "nobody else is there");
    cr_assert(others(101, "{\"flood\"}"));
    channels_others_claimed(channels, 1, 102);
    cr_expect_eq(channels_share(channels, 500, 103), 125);
    cr_expect_eq(channels_share(channels, 10, 103), 10);
    cr_expect_eq(channels_share(channels, 500, 1103), 500);
}

Test(crowds, where_a_quarter_takes_about_as_long_as_a_whole_batch_it_is_not_worth_it)
{
    know(flood_alone);
    claimed(true, false, flood_alone, all_rows, 100, 100);
    cr_assert(others(101, "{\"flood\"}"));
    channels_others_claimed(channels, 1, 102);
    channels_took(channels, 500, 500, 210, 102);
    channels_took(channels, 125, 500, 190, 102);
    cr_expect_eq(channels_share(channels, 500, 103), 500, "a broker that is far");
    channels_took(channels, 125, 500, 120, 104);
    cr_expect_eq(channels_share(channels, 500, 105), 125);
}

Test(crowds, ten_of_the_others_that_share_a_claim_do_not_crowd_and_one_that_fills_it_does_for_a_second_only)
{
    static const char *const flood[] = {"flood", NULL};
    static const char *const two[] = {"a", "b", NULL};
    static const size_t whole[] = {500};
    static const size_t tenth[] = {450, 50};
    know(flood);
    for (int64_t now_ms = 1000; now_ms <= 5000; now_ms += 1000) {
        claimed(true, false, flood, whole, 100, now_ms);
        claimed(true, true, two, tenth, 100, now_ms);
        cr_expect(others_but(now_ms + 1, "a", "flood"), "b has a tenth of what was for the others");
        channels_others_claimed(channels, 1, now_ms + 1);
        claimed(true, false, flood, whole, 100, now_ms + 998);
        claimed(true, false, flood, whole, 100, now_ms + 999);
    }
}

Test(crowds, one_large_row_is_a_full_claim)
{
    static const char *const names[] = {"large", NULL};
    static const size_t rows[] = {1};
    know(names);
    claimed(true, false, names, rows, 5 << 20, 100);
    cr_expect(others(101, "{\"large\"}"));
}

Test(crowds, names_without_end_leave_room_for_those_that_work)
{
    static char names[500][24];
    static const char *list[501];
    static size_t rows[500];
    struct channel_news news;
    text_finish(&resting);
    text_init(&resting, 8 << 20);
    know((const char *const[]){"shop", NULL});
    for (size_t round = 0; round < 140; round++) { /* 70,000 of them, and none takes anything */
        int64_t now_ms = 100 + (int64_t)round;
        for (size_t at = 0; at < 500; at++) {
            (void)snprintf(names[at], sizeof names[at], "c%zu.%zu", round, at);
            list[at] = names[at];
            rows[at] = 1;
        }
        claimed(true, false, list, rows, 1, now_ms);
        for (size_t at = 0; at < 500; at++) {
            (void)channels_hold(channels, bytes_of(names[at]), "404", 60000, now_ms, &news);
        }
    }
    channels_working(channels, 300, &resting);
    cr_expect(strstr(text_get(&resting), "shop"), "it is known to work, however many do not");
}

/* ---- newcomers ---- */

static bool takes_others(int64_t now_ms)
{
    return channels_take_others(channels, false, now_ms, &resting, &only);
}

/* A claim of so many newcomers, "n<from>" and on, with so many rows of each, as `row` is; how many rows were
 * postponed. */
static size_t newcomers_claimed(size_t from, size_t count, size_t rows, struct row like, int64_t now_ms)
{
    static char names[500][24];
    size_t postponed = 0;
    struct batch batch;
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 500, &err), 0);
    for (size_t at = 0; at < count; at++) {
        (void)snprintf(names[at], sizeof names[at], "n%zu", from + at);
    }
    for (size_t at = 0; at < count * rows; at++) {
        struct row *row = batch_add(&batch);
        const char *name = names[at % count];
        *row = like;
        row->message.channel = (struct outbox_bytes){name, strlen(name)};
    }
    bool any = channels_postpone_newcomers(channels, &batch, now_ms);
    for (size_t at = 0; at < batch.count; at++) {
        postponed += batch.rows[at].postponed;
    }
    cr_expect_eq(any, postponed > 0);
    if (any) {
        channels_see_newcomers(channels, false, now_ms);
    }
    batch_finish(&batch);
    return postponed;
}

static const struct row message = {.entry = 0};

/* Of so many, one row each. */
static size_t postponed_of(size_t from, size_t count, int64_t now_ms)
{
    return newcomers_claimed(from, count, 1, message, now_ms);
}

static void each_newcomer(size_t from, size_t count, bool works, int64_t now_ms)
{
    struct channel_news news;
    for (size_t at = from; at < from + count; at++) {
        char name[24];
        (void)snprintf(name, sizeof name, "n%zu", at);
        if (works) {
            (void)channels_confirmed(channels, bytes_of(name), now_ms);
        } else {
            (void)channels_hold(channels, bytes_of(name), "no such channel", 0, now_ms, &news);
        }
    }
}

Test(crowds, few_of_many_newcomers_are_tried_in_one_batch_with_all_of_their_rows)
{
    cr_expect_eq(newcomers_claimed(0, 64, 3, message, 100), 0);
    cr_expect_eq(newcomers_claimed(1000, 100, 3, message, 100), 36 * 3);
}

Test(crowds, what_asks_nothing_of_a_newcomer_is_not_postponed)
{
    cr_expect_eq(newcomers_claimed(0, 100, 3, (struct row){.entry = 7}, 100), 0,
                 "retries have their own waits");
    cr_expect_eq(newcomers_claimed(0, 100, 3, (struct row){.verdict = OUTBOX_REJECTED}, 100), 0, "expired");
}

Test(crowds, half_as_many_newcomers_are_tried_where_most_failed_and_more_where_most_did_not)
{
    each_newcomer(0, 2, false, 100);
    each_newcomer(2, 1, true, 100);
    cr_expect_eq(postponed_of(1000, 100, 100), 100 - 32);
    each_newcomer(3, 9, false, 100);
    cr_expect_eq(postponed_of(2000, 100, 100), 100 - 16);
    each_newcomer(12, 9, false, 100);
    cr_expect_eq(postponed_of(2000, 100, 100), 100 - 16, "never fewer");
    each_newcomer(3000, 40, true, 100);
    each_newcomer(3040, 20, false, 100);
    cr_expect_eq(postponed_of(4000, 100, 100), 100 - 56);
    each_newcomer(3000, 40, true, 101);
    cr_expect_eq(postponed_of(5000, 100, 101), 100 - 56, "no newcomers any more");
}

Test(crowds, newcomers_whose_messages_are_refused_for_their_own_sake_cost_little_and_more_of_them_are_tried)
{
    for (size_t at = 0; at < 30; at++) {
        channels_answered(channels, bytes_of("n7"));
    }
    cr_expect_eq(postponed_of(0, 100, 100), 100 - 94);
    each_newcomer(7, 1, true, 100);
    channels_answered(channels, bytes_of("n7"));
    cr_expect_eq(postponed_of(1000, 100, 100), 100 - 95, "one more that works, and it is new no more");
}

Test(crowds, who_is_known_to_work_or_to_rest_is_no_newcomer)
{
    each_newcomer(0, 50, true, 100);
    each_newcomer(50, 50, false, 100);
    cr_expect_eq(newcomers_claimed(0, 100, 2, message, 101), 0);
}

Test(crowds, where_newcomers_crowd_ordinary_claims_take_a_few_times_as_many_rows_as_are_tried)
{
    cr_expect_eq(channels_share(channels, 500, 3), 500);
    each_newcomer(0, 1, false, 3);
    cr_assert_gt(postponed_of(1000, 500, 4), 0);
    cr_expect_eq(channels_share(channels, 500, 5), 4 * 32);
    cr_expect_eq(channels_share(channels, 100, 5), 100);
    cr_expect_eq(channels_share(channels, 500, 1004), 500);
}

Test(crowds, where_newcomers_crowd_those_that_work_are_named_with_and_without_those_that_crowd_by_turns)
{
    know((const char *const[]){"one", "flood", "held", NULL});
    struct channel_news news;
    cr_expect(channels_hold(channels, bytes_of("held"), "404", 1, 2, &news));
    claimed(true, false, (const char *const[]){"flood", "one", NULL}, (const size_t[]){499, 1}, 1, 2);
    for (int64_t now_ms = 10; now_ms < 14; now_ms++) {
        cr_assert_gt(postponed_of(0, 500, now_ms), 0);
        cr_assert(takes_others(now_ms));
        const char *names = text_get(&only);
        cr_expect_str_eq(text_get(&resting), "{}");
        cr_expect(strstr(names, "\"one\"") && strstr(names, "\"another\""), "%s", names);
        cr_expect_eq(strstr(names, "flood") != NULL, now_ms % 2 == 1, "%s", names);
        cr_expect(!strstr(names, "held"), "it waits for its turn");
        channels_others_claimed(channels, 1, now_ms);
    }
    claimed(true, false, (const char *const[]){"flood", "one", NULL}, (const size_t[]){499, 1}, 1, 1014);
    cr_assert(takes_others(1014));
    cr_expect_str_eq(text_get(&only), "{}", "a second later there is no crowd of newcomers");
    cr_expect(strstr(text_get(&resting), "\"flood\"") && strstr(text_get(&resting), "\"held\""));
}

Test(crowds, where_all_that_work_crowd_they_are_named_each_time)
{
    know((const char *const[]){"flood", NULL});
    claimed(true, false, (const char *const[]){"flood", "another", NULL}, (const size_t[]){250, 250}, 1, 2);
    for (int64_t now_ms = 2000; now_ms < 2002; now_ms++) {
        claimed(true, false, (const char *const[]){"flood", "another", NULL}, (const size_t[]){250, 250}, 1,
                now_ms);
        cr_assert_gt(postponed_of(0, 500, now_ms), 0);
        cr_assert(takes_others(now_ms + 700));
        cr_expect(strstr(text_get(&only), "\"flood\"") && strstr(text_get(&only), "\"another\""));
        channels_others_claimed(channels, 1, now_ms + 700);
    }
}

Test(crowds, where_none_is_known_to_work_those_on_hold_are_left_out_as_ever)
{
    struct channel_news news;
    cr_expect(channels_hold(channels, bytes_of("held"), "404", 5000, 2, &news));
    cr_assert_gt(postponed_of(0, 500, 4), 0);
    int64_t now_ms = 5;
    while (!takes_others(now_ms) && now_ms < 1000) {
        now_ms++;
    }
    cr_expect_lt(now_ms, 1000);
    cr_expect_str_eq(text_get(&only), "{}");
    cr_expect_str_eq(text_get(&resting), "{\"held\"}");
}

Test(crowds, where_newcomers_crowd_a_turn_is_of_the_named_alone)
{
    struct channel_news news;
    cr_expect(channels_hold(channels, bytes_of("held"), "404", 10, 2, &news));
    cr_expect(channels_hold(channels, bytes_of("rests"), "404", 5000, 2, &news));
    cr_assert_gt(postponed_of(0, 500, 100), 0);
    cr_assert(channels_take_turn(channels, 100, &resting, &only));
    cr_expect_str_eq(text_get(&only), "{\"held\"}");
    cr_expect_str_eq(text_get(&resting), "{}");
}
