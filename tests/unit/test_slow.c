#include <criterion/criterion.h>
#include <string.h>

#include "channels/channels.h"

static struct channels *channels;
static struct text list;
static struct text only;

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(channels_new(&channels, 2, 1000, 60000, &err), 0);
    text_init(&list, 1 << 20);
    text_init(&only, 1 << 20);
}

static void teardown(void)
{
    channels_free(channels);
    text_finish(&list);
    text_finish(&only);
}

TestSuite(slow, .init = setup, .fini = teardown);

/* How long is the caller's judgement: so short that two stand side by side within a test's second. */
static bool took_long(const char *name, bool retries, bool its_own, int64_t now_ms)
{
    return channels_took_long(channels, bytes_of(name), retries ? 2000 : 300, retries, its_own, now_ms);
}

static void confirmed(const char *name, int64_t now_ms)
{
    (void)channels_confirmed(channels, bytes_of(name), now_ms);
}

static const char *left_out(int64_t now_ms)
{
    (void)channels_on_hold(channels, now_ms, &list);
    return text_get(&list);
}

static const char *retries_left_out(int64_t now_ms)
{
    channels_without_retries(channels, now_ms, &list);
    return text_get(&list);
}

/* Found twice: ordinary claims leave it out from 1000 on. */
static void make_slow(const char *name)
{
    confirmed(name, 0);
    confirmed("quick", 0);
    cr_assert(!took_long(name, false, true, 500));
    confirmed("quick", 1000);
    cr_assert(took_long(name, false, true, 1000), "the second time it is news");
}

static void claim_in_turn(unsigned turn, const char *name, enum turn_view view)
{
    struct batch batch;
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 1, &err), 0);
    if (name) {
        batch_add(&batch)->message.channel = (struct outbox_bytes){name, strlen(name)};
    }
    channels_turn_claimed(channels, turn, &batch, view);
    batch_finish(&batch);
}

Test(slow, who_takes_long_twice_beside_others_that_do_not_is_claimed_in_turns_alone)
{
    confirmed("slow", 0);
    confirmed("quick", 0);
    cr_expect(!took_long("slow", false, true, 500));
    cr_expect_str_eq(left_out(600), "{}", "once may be the broker's fault");
    confirmed("quick", 1000);
    cr_expect(took_long("slow", false, true, 1000));
    cr_expect_str_eq(left_out(1001), "{\"slow\"}");
    unsigned turn = channels_take_turn(channels, 1001, &list, &only);
    cr_assert(turn);
    cr_expect_str_eq(text_get(&only), "{\"slow\"}", "and nobody waits with it");
    cr_expect(!took_long("slow", false, false, 3000), "it is no news");
}

Test(slow, two_batches_that_take_long_are_two_when_they_are_not_far_apart)
{
    confirmed("quick", 0);
    cr_expect(!took_long("slow", false, true, 500));
    cr_expect(!took_long("slow", false, true, 31000));
    confirmed("quick", 40000);
    cr_expect(took_long("slow", false, true, 40000));
}

Test(slow, where_all_wait_for_one_another_who_is_not_why_is_not_slow)
{
    confirmed("quick", 0);
    cr_expect(!took_long("one", false, false, 500));
    cr_expect(!took_long("one", false, false, 600));
    cr_expect_str_eq(left_out(601), "{}");
}

Test(slow, where_nobody_else_works_it_is_claimed_like_any_other)
{
    make_slow("slow");
    confirmed("slow", 10000);
    cr_expect_str_eq(left_out(10999), "{\"slow\"}");
    cr_expect_str_eq(left_out(11001), "{}", "the quick one has not worked for ten seconds");
}

Test(slow, it_is_forgotten_half_a_minute_after_it_last_took_long)
{
    make_slow("slow");
    confirmed("quick", 30000);
    cr_expect_str_eq(left_out(30999), "{\"slow\"}");
    cr_expect_str_eq(left_out(31001), "{}");
}

Test(slow, after_its_turn_the_others_have_as_long_and_a_turn_that_was_quick_is_its_last)
{
    make_slow("slow");
    unsigned turn = channels_take_turn(channels, 1001, &list, &only);
    claim_in_turn(turn, "slow", TURN_PART);
    channels_end_turn(channels, turn, 1801);
    cr_expect_eq(channels_take_turn(channels, 2600, &list, &only), 0);
    turn = channels_take_turn(channels, 2601, &list, &only);
    cr_assert(turn);
    claim_in_turn(turn, "slow", TURN_PART);
    channels_end_turn(channels, turn, 2700);
    cr_expect_str_eq(left_out(2701), "{\"slow\"}", "it was short, and sent nothing");
    turn = channels_take_turn(channels, 2801, &list, &only);
    cr_assert(turn);
    claim_in_turn(turn, "slow", TURN_PART);
    confirmed("slow", 2900);
    channels_end_turn(channels, turn, 2901);
    cr_expect_str_eq(left_out(2902), "{}");
}

Test(slow, one_that_is_alone_is_not_slow_beside_itself)
{
    confirmed("big", 100);
    (void)took_long("big", false, true, 100);
    confirmed("big", 500);
    (void)took_long("big", false, true, 500);
    cr_expect_str_eq(left_out(501), "{}");
    confirmed("shop", 600);
    confirmed("big", 900);
    (void)took_long("big", false, true, 900);
    cr_expect_str_eq(left_out(901), "{\"big\"}", "there is another now");
}

Test(slow, of_two_that_are_alone_and_both_slow_neither_is_for_long)
{
    for (int64_t now_ms = 100; now_ms < 16000; now_ms += 400) {
        confirmed("one", now_ms);
        confirmed("two", now_ms);
        (void)took_long("one", false, true, now_ms);
        (void)took_long("two", false, true, now_ms);
    }
    cr_expect_str_eq(left_out(15900), "{}");
}

Test(slow, what_two_workers_see_of_one_stumble_is_once)
{
    confirmed("quick", 1000);
    cr_expect(!took_long("slow", false, true, 1000));
    cr_expect(!took_long("slow", false, true, 1100), "its batch began before");
    cr_expect_str_eq(left_out(1101), "{}");
    cr_expect(took_long("slow", false, true, 1300), "that of the third did not");
}

Test(slow, of_a_turn_that_brings_nothing_another_follows_soon_where_others_may_hold_its_lanes)
{
    make_slow("slow");
    unsigned turn = channels_take_turn(channels, 1001, &list, &only);
    claim_in_turn(turn, NULL, TURN_PART);
    channels_end_turn(channels, turn, 1002);
    cr_expect_str_eq(left_out(1003), "{\"slow\"}");
    cr_expect_eq(channels_take_turn(channels, 1101, &list, &only), 0, "not at full speed");
    turn = channels_take_turn(channels, 1102, &list, &only);
    cr_assert(turn);
    claim_in_turn(turn, NULL, TURN_WHOLE);
    channels_end_turn(channels, turn, 1103);
    cr_expect_str_eq(left_out(1104), "{}", "there is nothing to leave out");
}

Test(slow, retries_that_take_long_wait_four_times_as_long_and_the_channels_messages_go_on)
{
    cr_expect(!took_long("slow", true, true, 1000));
    cr_expect_str_eq(left_out(1001), "{}");
    cr_expect_str_eq(retries_left_out(8999), "{\"slow\"}");
    cr_expect_str_eq(retries_left_out(9001), "{}");
}

Test(slow, retries_take_so_many_workers_at_most)
{
    cr_expect(channels_begin_retries(channels, 1));
    cr_expect(channels_begin_retries(channels, 1));
    cr_expect(!channels_begin_retries(channels, 1));
    channels_end_retries(channels);
    cr_expect(channels_begin_retries(channels, 1));
}

Test(slow, where_retries_take_long_turns_count_with_them)
{
    make_slow("slow");
    cr_assert(channels_take_turn(channels, 1001, &list, &only));
    cr_expect(channels_begin_retries(channels, 1001));
    cr_expect(channels_begin_retries(channels, 1001), "they are quick, as far as is known");
    channels_end_retries(channels);
    (void)took_long("slow", true, true, 1002);
    cr_expect(!channels_begin_retries(channels, 1003), "one turn and one claim of retries");
    channels_end_retries(channels);
    cr_expect(channels_begin_retries(channels, 1004));
}

Test(slow, no_turn_begins_while_so_many_are_under_way)
{
    struct channel_news news;
    make_slow("slow");
    cr_assert(channels_take_turn(channels, 1001, &list, &only));
    for (const char *const *name = (const char *const[]){"b", "c", NULL}; *name; name++) {
        (void)channels_hold(channels, bytes_of(*name), "full", 1, 1001, &news);
        left_out(4000);
        unsigned turn = channels_take_turn(channels, (*name)[0] == 'b' ? 4000 : 8000, &list, &only);
        cr_expect_eq(turn > 0, (*name)[0] == 'b', "%s", *name);
    }
}

/* ---- who crowds ---- */

/* A claim that "flood" fills. */
static void full_claim(enum channels_rows rows, int64_t now_ms)
{
    static const char payload[1];
    struct batch batch;
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 500, &err), 0);
    for (size_t row = 0; row < 500; row++) {
        struct outbox_message *message = &batch_add(&batch)->message;
        message->channel = (struct outbox_bytes){"flood", 5};
        message->payload = (struct outbox_bytes){payload, 1};
    }
    channels_see_full(channels, &batch, rows, false, now_ms);
    batch_finish(&batch);
}

Test(slow, who_crowds_and_takes_long_has_turns_in_place_of_his_part_of_the_ordinary_claims)
{
    confirmed("quick", 0);
    full_claim(ROWS_UNKEYED, 100); /* for a second */
    cr_expect(!took_long("flood", false, true, 200));
    cr_expect(took_long("flood", false, true, 500));
    cr_expect_str_eq(left_out(501), "{\"flood\"}");
    cr_expect(channels_take_turn(channels, 601, &list, &only));
    cr_expect_str_eq(text_get(&only), "{\"flood\"}");
}

Test(slow, retries_that_fill_their_claims_keep_no_others_retries_waiting)
{
    confirmed("flood", 1);
    confirmed("shop", 1);
    full_claim(ROWS_RETRIES, 100);
    cr_expect(!channels_take_others(channels, ROWS_UNKEYED, 101, &list, &only), "messages do not crowd");
    cr_assert(channels_take_others(channels, ROWS_RETRIES, 101, &list, &only));
    cr_expect_str_eq(text_get(&list), "{\"flood\"}");
    cr_expect_str_eq(text_get(&only), "{}");
    channels_others_claimed(channels, 2, 102);
    cr_expect(!channels_take_others(channels, ROWS_RETRIES, 103, &list, &only), "one claim of two");
}
