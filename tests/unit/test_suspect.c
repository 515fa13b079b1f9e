#include <criterion/criterion.h>

#include "suspect.h"

static struct suspect suspect;
static int64_t after;

static void setup(void)
{
    suspect_init(&suspect);
}

static void teardown(void)
{
    suspect_finish(&suspect);
}

TestSuite(suspect, .init = setup, .fini = teardown);

Test(suspect, one_worker_sends_singles_while_the_others_wait)
{
    cr_expect_eq(suspect_ask(&suspect, 1, false, &after), SUSPECT_NONE);
    suspect_begin(&suspect, 2);
    cr_expect_eq(suspect_ask(&suspect, 1, false, &after), SUSPECT_SINGLE);
    cr_expect_eq(suspect_ask(&suspect, 2, false, &after), SUSPECT_WAIT);
}

Test(suspect, ends_after_as_many_singles_as_the_lost_batch_had_rows)
{
    suspect_begin(&suspect, 2);
    (void)suspect_ask(&suspect, 1, false, &after);
    cr_expect(!suspect_tried(&suspect, 1, 10));
    (void)suspect_ask(&suspect, 1, false, &after);
    cr_expect_eq(after, 10, "the next single lies behind the one that was tried");
    cr_expect(suspect_tried(&suspect, 1, 11));
    cr_expect_eq(suspect_ask(&suspect, 2, false, &after), SUSPECT_NONE);
}

Test(suspect, ends_when_no_row_is_left)
{
    suspect_begin(&suspect, 500);
    (void)suspect_ask(&suspect, 1, false, &after);
    cr_expect(suspect_tried(&suspect, 1, 0));
    cr_expect_eq(suspect_ask(&suspect, 2, false, &after), SUSPECT_NONE);
}

Test(suspect, the_breakers_prober_takes_over_so_that_neither_waits_for_the_other)
{
    suspect_begin(&suspect, 5);
    (void)suspect_ask(&suspect, 1, false, &after);
    cr_expect_eq(suspect_ask(&suspect, 2, true, &after), SUSPECT_SINGLE);
    cr_expect_eq(suspect_ask(&suspect, 1, false, &after), SUSPECT_WAIT);
}

Test(suspect, another_worker_goes_on_when_the_prober_ends)
{
    suspect_begin(&suspect, 5);
    (void)suspect_ask(&suspect, 1, false, &after);
    suspect_abandon(&suspect, 1);
    cr_expect_eq(suspect_ask(&suspect, 2, false, &after), SUSPECT_SINGLE);
}

Test(suspect, what_other_workers_tried_does_not_count)
{
    suspect_begin(&suspect, 1);
    (void)suspect_ask(&suspect, 1, false, &after);
    cr_expect(!suspect_tried(&suspect, 2, 99));
    cr_expect_eq(suspect_ask(&suspect, 1, false, &after), SUSPECT_SINGLE);
}
