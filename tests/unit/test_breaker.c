#include <criterion/criterion.h>

#include "machine/breaker.h"

static struct breaker breaker;
static int64_t until_ms;

static void setup(void)
{
    breaker_init(&breaker, 3, 1000, 60000, 0);
}

static void teardown(void)
{
    breaker_finish(&breaker);
}

TestSuite(breaker, .init = setup, .fini = teardown);

static void open_it(void)
{
    for (int failure = 0; failure < 3; failure++) {
        (void)breaker_failed(&breaker, "down", 0);
    }
}

Test(breaker, opens_after_the_allowed_failures_in_a_row)
{
    cr_expect(!breaker_failed(&breaker, "down", 0));
    cr_expect(!breaker_failed(&breaker, "down", 0));
    cr_expect_eq(breaker_ask(&breaker, 0, 0, &until_ms), BREAKER_PASS);
    cr_expect(breaker_failed(&breaker, "down", 0));
    cr_expect_eq(breaker_ask(&breaker, 0, 0, &until_ms), BREAKER_WAIT);
    cr_expect(until_ms >= 500 && until_ms <= 1000);
}

Test(breaker, a_success_in_between_forgives_failures)
{
    (void)breaker_failed(&breaker, "down", 0);
    (void)breaker_failed(&breaker, "down", 0);
    (void)breaker_succeeded(&breaker, 0);
    (void)breaker_failed(&breaker, "down", 0);
    cr_expect_eq(breaker_ask(&breaker, 0, 0, &until_ms), BREAKER_PASS);
}

Test(breaker, lets_one_prober_through_when_its_time_has_come)
{
    open_it();
    cr_expect_eq(breaker_ask(&breaker, 1, 2000, &until_ms), BREAKER_PROBE);
    cr_expect_eq(breaker_ask(&breaker, 2, 2000, &until_ms), BREAKER_WAIT);
    cr_expect_eq(breaker_ask(&breaker, 1, 2000, &until_ms), BREAKER_PROBE);
}

Test(breaker, closes_when_the_probe_succeeds_and_opens_longer_when_it_fails)
{
    open_it();
    (void)breaker_ask(&breaker, 1, 2000, &until_ms);
    cr_expect(breaker_failed(&breaker, "still down", 2000));
    cr_expect_eq(breaker_ask(&breaker, 1, 2001, &until_ms), BREAKER_WAIT);
    cr_expect_eq(breaker_ask(&breaker, 1, 2000 + 60000, &until_ms), BREAKER_PROBE);
    cr_expect(breaker_succeeded(&breaker, 62000));
    cr_expect_eq(breaker_ask(&breaker, 2, 62000, &until_ms), BREAKER_PASS);
}

Test(breaker, a_confirm_from_before_it_opened_does_not_close_it)
{
    open_it();
    cr_expect(!breaker_succeeded(&breaker, 1));
    cr_expect_eq(breaker_ask(&breaker, 0, 1, &until_ms), BREAKER_WAIT);
}

Test(breaker, another_worker_probes_when_the_prober_goes)
{
    open_it();
    (void)breaker_ask(&breaker, 1, 2000, &until_ms);
    breaker_abandon(&breaker, 1);
    cr_expect_eq(breaker_ask(&breaker, 2, 2000, &until_ms), BREAKER_PROBE);
}

Test(breaker, a_pause_that_the_broker_asked_for_ends_when_it_says_so)
{
    cr_expect(breaker_busy(&breaker, "alarm", 30000, 0));
    cr_expect_eq(breaker_ask(&breaker, 0, 29999, &until_ms), BREAKER_WAIT);
    cr_expect_eq(until_ms, 30000);
    cr_expect(breaker_pause_over(&breaker, 100));
    cr_expect_eq(breaker_ask(&breaker, 0, 100, &until_ms), BREAKER_PASS);
}

Test(breaker, the_end_of_a_pause_does_not_close_a_breaker_that_failures_opened)
{
    open_it();
    cr_expect(!breaker_pause_over(&breaker, 1));
    cr_expect_eq(breaker_ask(&breaker, 0, 1, &until_ms), BREAKER_WAIT);
}

Test(breaker, tells_people_its_state_reason_and_next_try)
{
    struct breaker_view view;
    open_it();
    breaker_look(&breaker, 100, &view);
    cr_expect_eq(view.state, BREAKER_OPEN);
    cr_expect_str_eq(view.reason, "down");
    cr_expect(view.next_try_in_ms > 0 && view.next_try_in_ms <= 1000);
}
