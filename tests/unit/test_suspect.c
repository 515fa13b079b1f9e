#include <criterion/criterion.h>

#include "machine/suspect.h"

static struct suspect suspect;
static int64_t seq;
static const int64_t rows[] = {10, 11, 12};

static void setup(void)
{
    suspect_init(&suspect);
}

static void teardown(void)
{
    suspect_finish(&suspect);
}

TestSuite(suspect, .init = setup, .fini = teardown);

/* The single that worker 1 may send now. */
static int64_t single(void)
{
    cr_assert_eq(suspect_ask(&suspect, 1, false, &seq), SUSPECT_SINGLE);
    return seq;
}

Test(suspect, one_worker_sends_singles_while_the_others_wait)
{
    suspect_begin(&suspect, rows, 2);
    cr_expect_eq(single(), 10);
    cr_expect_eq(suspect_ask(&suspect, 2, false, &seq), SUSPECT_WAIT);
}

Test(suspect, ends_when_each_row_that_was_in_flight_was_tried)
{
    suspect_begin(&suspect, rows, 2);
    cr_expect(!suspect_tried(&suspect, 1, single(), false));
    cr_expect_eq(single(), 11);
    cr_expect(suspect_tried(&suspect, 1, 11, false));
    cr_expect_eq(suspect_ask(&suspect, 2, false, &seq), SUSPECT_NONE);
}

Test(suspect, no_single_is_sent_before_those_who_claimed_earlier_have_let_go)
{
    cr_expect_eq(suspect_ask(&suspect, 1, false, &seq), SUSPECT_NONE);
    cr_expect_eq(suspect_ask(&suspect, 2, false, &seq), SUSPECT_NONE);
    suspect_begin(&suspect, rows, 2);
    cr_expect(suspect_let_go(&suspect, 1), "others wait for it");
    cr_expect_eq(suspect_ask(&suspect, 1, false, &seq), SUSPECT_WAIT,
                 "worker 2 may hold a suspect in its batch");
    cr_expect(suspect_let_go(&suspect, 2));
    cr_expect(!suspect_let_go(&suspect, 2), "once");
    cr_expect_eq(single(), 10);
}

Test(suspect, who_ended_its_session_alone_is_tried_once_more_after_the_others)
{
    suspect_begin(&suspect, rows, 3);
    cr_expect(!suspect_tried(&suspect, 1, single(), false));
    cr_expect_eq(single(), 11);
    cr_expect(!suspect_tried(&suspect, 1, 11, true));
    cr_expect_eq(suspect_ask(&suspect, 2, false, &seq), SUSPECT_SINGLE, "whoever has a session goes on");
    cr_expect_eq(seq, 12);
    cr_expect(!suspect_tried(&suspect, 2, 12, false));
    cr_expect_eq(suspect_ask(&suspect, 2, false, &seq), SUSPECT_SINGLE);
    cr_expect_eq(seq, 11);
    cr_expect(suspect_tried(&suspect, 2, 11, true), "and not for ever");
}

Test(suspect, the_breakers_prober_takes_over_so_that_neither_waits_for_the_other)
{
    suspect_begin(&suspect, rows, 3);
    (void)single();
    cr_expect_eq(suspect_ask(&suspect, 2, true, &seq), SUSPECT_SINGLE);
    cr_expect_eq(suspect_ask(&suspect, 1, false, &seq), SUSPECT_WAIT);
}

Test(suspect, another_worker_goes_on_when_the_prober_ends)
{
    suspect_begin(&suspect, rows, 3);
    (void)single();
    cr_expect(suspect_abandon(&suspect, 1));
    cr_expect_eq(suspect_ask(&suspect, 2, false, &seq), SUSPECT_SINGLE);
}

Test(suspect, what_other_workers_tried_does_not_count)
{
    suspect_begin(&suspect, rows, 1);
    (void)single();
    cr_expect(!suspect_tried(&suspect, 2, 10, false));
    cr_expect_eq(single(), 10);
}

Test(suspect, a_second_loss_adds_its_rows_as_far_as_there_is_room)
{
    static int64_t many[SUSPECT_MAX_ROWS];
    suspect_begin(&suspect, rows, 3);
    suspect_begin(&suspect, many, SUSPECT_MAX_ROWS);
    cr_expect_eq(suspect.count, SUSPECT_MAX_ROWS);
    cr_expect_eq(single(), 10, "who was there first comes first");
}

Test(suspect, includes_what_is_still_to_be_tried_and_what_is_tried_again)
{
    cr_expect(!suspect_includes(&suspect, 10));
    suspect_begin(&suspect, rows, 3);
    cr_expect(suspect_includes(&suspect, 10) && suspect_includes(&suspect, 12) &&
              !suspect_includes(&suspect, 13));
    cr_expect(!suspect_tried(&suspect, 1, single(), false));
    cr_expect(!suspect_includes(&suspect, 10), "it was no fault of this row");
    cr_expect(!suspect_tried(&suspect, 1, single(), true));
    cr_expect(suspect_includes(&suspect, 11), "it ended a session alone, and comes once more");
}
