#include <criterion/criterion.h>
#include <string.h>

#include "confirm.h"

enum { BATCH = 8 };

static struct confirms confirms;
static char seen[BATCH + 1]; /* per index: a acked, n nacked, r returned, . nothing */

static void settled(void *context, size_t index, enum confirm_result result, const char *reply)
{
    cr_assert_eq(context, &confirms);
    cr_assert_eq(seen[index], '.', "index %zu settled twice", index);
    seen[index] = "anr"[result];
    cr_expect(result != CONFIRM_RETURNED || strcmp(reply, "NO_ROUTE") == 0);
}

static bool answer(uint64_t tag, bool multiple, bool ack)
{
    return confirms_answer(&confirms, tag, multiple, ack, settled, &confirms);
}

static void begin(size_t count)
{
    memset(seen, '.', BATCH);
    cr_assert_eq(confirms_begin(&confirms, BATCH), 0);
    for (size_t at = 0; at < count; at++) {
        confirms_published(&confirms, at, (int64_t)(1000 + at), 7);
    }
}

static void setup(void)
{
    confirms = (struct confirms){0};
    confirms_reset(&confirms);
    begin(BATCH);
}

static void teardown(void)
{
    confirms_finish(&confirms);
}

TestSuite(confirm, .init = setup, .fini = teardown);

Test(confirm, single_acks_settle_one_message_each_in_any_order)
{
    cr_expect(answer(3, false, true) && answer(1, false, true));
    cr_expect_str_eq(seen, "a.a.....");
    cr_expect_eq(confirms.outstanding, 6);
}

Test(confirm, multiple_settles_everything_up_to_the_tag_that_is_still_open)
{
    cr_expect(answer(2, false, false) && answer(4, true, true));
    cr_expect_str_eq(seen, "anaa....");
    cr_expect(answer(8, true, true));
    cr_expect_str_eq(seen, "anaaaaaa");
    cr_expect_eq(confirms.outstanding, 0);
}

Test(confirm, tag_zero_with_multiple_means_all)
{
    cr_expect(answer(0, true, true));
    cr_expect_str_eq(seen, "aaaaaaaa");
}

Test(confirm, a_returned_message_is_not_confirmed_by_its_ack)
{
    cr_expect(confirms_returned(&confirms, 1002, 7, "NO_ROUTE"));
    cr_expect(answer(8, true, true));
    cr_expect_str_eq(seen, "aaraaaaa");
}

Test(confirm, a_return_of_an_unknown_seq_changes_nothing)
{
    cr_expect(!confirms_returned(&confirms, 1, 7, "NO_ROUTE"));
    cr_expect(answer(8, true, true));
    cr_expect_str_eq(seen, "aaaaaaaa");
}

Test(confirm, the_first_answer_counts_when_the_broker_repeats_itself)
{
    cr_expect(answer(1, false, false) && answer(1, false, true));
    cr_expect_str_eq(seen, "n.......");
    cr_expect_eq(confirms.outstanding, 7);
}

Test(confirm, tags_that_were_never_used_are_a_protocol_error)
{
    cr_expect(!answer(9, false, true));
    cr_expect(!answer(9, true, true));
    cr_expect(!answer(0, false, true));
    cr_expect_str_eq(seen, "........");
}

Test(confirm, late_answers_about_an_earlier_batch_are_ignored)
{
    cr_expect(answer(1, false, true));
    begin(3); /* tags 9 to 11; 2 to 8 were never answered */
    cr_expect(answer(5, false, true) && answer(8, true, true));
    cr_expect_str_eq(seen, "........");
    cr_expect(answer(10, true, true));
    cr_expect_str_eq(seen, "aa......");
    cr_expect(!confirms_returned(&confirms, 1005, 7, "NO_ROUTE"));
}

Test(confirm, answers_after_the_end_of_a_batch_settle_nothing)
{
    cr_expect(answer(1, false, true));
    confirms_end(&confirms);
    cr_expect(answer(3, false, true) && answer(8, true, true) && answer(0, true, false));
    cr_expect_str_eq(seen, "a.......");
    cr_expect(!answer(9, false, true), "a tag that was never used stays a protocol error");
}

Test(confirm, knows_when_exactly_one_message_is_in_flight)
{
    size_t index = 99;
    cr_expect(!confirms_only_one(&confirms, &index));
    cr_expect(answer(4, true, true) && answer(8, false, true) && answer(7, false, true) &&
              answer(5, false, true));
    cr_expect(confirms_only_one(&confirms, &index));
    cr_expect_eq(index, 5);
}

Test(confirm, blames_no_message_while_older_ones_may_still_be_on_their_way)
{
    size_t index = 0;
    begin(1); /* the eight of the setup were never answered */
    cr_expect(!confirms_only_one(&confirms, &index));
    confirms_reset(&confirms);
    begin(1);
    cr_expect(confirms_only_one(&confirms, &index));
}

Test(confirm, a_new_channel_counts_from_one_again)
{
    confirms_reset(&confirms);
    begin(1);
    cr_expect(answer(1, false, true));
    cr_expect_str_eq(seen, "a.......");
}

Test(confirm, of_two_rows_with_one_seq_the_one_that_came_back_is_known_by_its_id)
{
    cr_assert_eq(confirms_begin(&confirms, BATCH), 0);
    memset(seen, '.', BATCH);
    confirms_published(&confirms, 0, 1, 7);
    confirms_published(&confirms, 1, 1, 8);
    confirms_published(&confirms, 2, 1, 8); /* one id, too: whichever it was, neither is confirmed */
    cr_expect(confirms_returned(&confirms, 1, 8, "NO_ROUTE"));
    cr_expect(answer(confirms.first_tag + 2, true, true));
    cr_expect_str_eq(seen, "arr.....");
    confirms_published(&confirms, 3, 2, 7);
    cr_expect(confirms_returned(&confirms, 2, 0, "NO_ROUTE"), "an unknown id is that of any");
}
