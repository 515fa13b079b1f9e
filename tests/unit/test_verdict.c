/* The product's specification: what each verdict does to a row and its channel, under which evidence. */
#include <criterion/criterion.h>
#include <string.h>

#include "machine/verdict.h"

static struct batch batch;
static struct verdict verdict;
static struct backoff backoff;
static struct verdict_rules rules;
static struct verdict_context context;

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 40, &err), 0);
    cr_assert_eq(verdict_init(&verdict, 40, &err), 0);
    backoff_init(&backoff, 1000, 600000);
    rules = (struct verdict_rules){.max_attempts = 3};
    context = (struct verdict_context){.rules = &rules, .backoff = &backoff, .began_ms = 1000};
}

static void teardown(void)
{
    batch_finish(&batch);
    verdict_finish(&verdict);
}

TestSuite(verdict, .init = setup, .fini = teardown);

static struct row *add(const char *channel, int64_t seq, enum outbox_verdict said)
{
    struct row *row = batch_add(&batch);
    row->message.channel = (struct outbox_bytes){channel, strlen(channel)};
    row->message.id = (struct outbox_bytes){"id", 2};
    row->message.seq = seq;
    row->lent = true;
    row->verdict = said;
    row->error = "why";
    return row;
}

static void add_many(size_t count, const char *channel, enum outbox_verdict said)
{
    for (size_t at = 0; at < count; at++) {
        add(channel, 100 + (int64_t)batch.count, said);
    }
}

static void decide(void)
{
    batch.lent.count = batch.count;
    verdict_decide(&verdict, &batch, &context);
}

static const struct verdict_channel *told(const char *channel)
{
    for (size_t at = 0; at < verdict.count; at++) {
        if (bytes_equal(verdict.channels[at].name, bytes_of(channel))) {
            return &verdict.channels[at];
        }
    }
    cr_assert_fail("nothing is told of %s", channel);
    return NULL;
}

static bool rests(const char *channel)
{
    return told(channel)->wall != NULL;
}

Test(verdict, a_confirmed_row_is_deleted)
{
    struct row *row = add("a", 1, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_DELETED);
    cr_expect_eq(verdict.tally.confirmed, 1);
}

Test(verdict, an_unsettled_row_stays_without_an_attempt)
{
    struct row *row = add("a", 1, OUTBOX_UNSETTLED);
    add("a", 2, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_STAYS);
    cr_expect_eq(row->attempts, 0);
    cr_expect(!rests("a"));
}

Test(verdict, a_held_row_stays_without_an_attempt_and_its_channel_rests)
{
    struct row *row = add("a", 1, OUTBOX_HOLD);
    add("b", 2, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_STAYS);
    cr_expect_eq(row->attempts, 0);
    cr_expect(rests("a"));
    cr_expect(!rests("b"));
}

Test(verdict, a_refusal_counts_when_a_neighbour_of_its_channel_was_confirmed)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    add("a", 2, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
    cr_expect(row->wait_ms >= 500 && row->wait_ms <= 1000);
    cr_expect(!rests("a"));
}

Test(verdict, a_refusal_without_evidence_counts_nothing_and_rests_the_channel)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    add("b", 2, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_STAYS);
    cr_expect_eq(row->attempts, 0);
    cr_expect(rests("a"));
}

Test(verdict, an_outage_never_makes_dead_letters_however_often_it_refuses)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    for (int round = 0; round < 100; round++) {
        row->fate = ROW_BURIED;
        context.began_ms += 100000;
        decide();
        cr_assert_eq(row->fate, ROW_STAYS, "round %d", round);
        cr_assert_eq(row->attempts, 0);
    }
}

Test(verdict, evidence_after_the_first_try_counts_at_the_second)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    decide();
    cr_assert_eq(row->fate, ROW_STAYS);
    cr_assert(row->refused, "when it was tried is to be remembered");
    row->known.tried_ms = 1000;
    row->known.confirmed_ms = 5000;
    context.began_ms = 9000;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
}

Test(verdict, a_waiting_row_counts_only_against_confirms_since_its_last_try)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->entry = 77;
    row->attempts = 1;
    row->known.tried_ms = 600;
    row->known.confirmed_ms = 500;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
    cr_expect(!rests("a"), "a single waiting row must not stop a channel that may well work");
    row->known.confirmed_ms = 700;
    decide();
    cr_expect_eq(row->attempts, 2);
}

Test(verdict, the_last_attempt_makes_a_dead_letter)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->entry = 77;
    row->attempts = 2;
    add("a", 2, OUTBOX_CONFIRMED);
    row->known.tried_ms = 1000;
    decide();
    cr_expect_eq(row->fate, ROW_BURIED);
    cr_expect_str_eq(row->burial, "attempts");
    cr_expect_eq(row->attempts, 3);
    cr_expect_eq(verdict.tally.buried, 1);
}

Test(verdict, max_attempts_zero_never_gives_up)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    rules.max_attempts = 0;
    row->entry = 77;
    row->attempts = 100000;
    add("a", 2, OUTBOX_CONFIRMED);
    row->known.tried_ms = 1000;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
}

Test(verdict, a_rejected_row_is_a_dead_letter_at_once)
{
    struct row *row = add("a", 1, OUTBOX_REJECTED);
    decide();
    cr_expect_eq(row->fate, ROW_BURIED);
    cr_expect_str_eq(row->burial, "rejected");
    cr_expect_eq(row->attempts, 0);
}

Test(verdict, an_expired_row_is_a_dead_letter_with_that_reason)
{
    struct row *row = add("a", 1, OUTBOX_UNSETTLED);
    batch_refuse(&batch, row, "expired", "too late");
    decide();
    cr_expect_eq(row->fate, ROW_BURIED);
    cr_expect_str_eq(row->burial, "expired");
}

Test(verdict, give_up_after_is_the_only_age_limit)
{
    struct row *refused = add("a", 1, OUTBOX_RETRY);
    struct row *held = add("b", 2, OUTBOX_HOLD);
    refused->age_ms = held->age_ms = 90000000;
    decide();
    cr_expect_eq(refused->fate, ROW_STAYS);
    cr_expect_eq(held->fate, ROW_STAYS);
    rules.give_up_after_ms = 86400000;
    decide();
    cr_expect_eq(refused->fate, ROW_BURIED);
    cr_expect_eq(held->fate, ROW_BURIED);
    cr_expect_str_eq(held->burial, "age");
}

Test(verdict, a_session_lost_in_company_blames_nobody)
{
    struct row *first = add("a", 1, OUTBOX_UNSETTLED);
    struct row *second = add("a", 2, OUTBOX_UNSETTLED);
    add("a", 3, OUTBOX_CONFIRMED);
    context.loss = "connection reset";
    decide();
    cr_expect_eq(first->fate, ROW_STAYS);
    cr_expect_eq(second->fate, ROW_STAYS);
    cr_expect_eq(verdict.tally.unsettled, 2);
    cr_expect_eq(verdict.tally.confirmed, 1);
}

Test(verdict, a_session_lost_over_a_single_row_is_a_refusal_under_the_rule_of_evidence)
{
    struct row *row = add("a", 1, OUTBOX_UNSETTLED);
    context.loss = "connection reset";
    context.single = true;
    decide();
    cr_expect_eq(row->fate, ROW_STAYS);
    cr_expect(told("a")->tentative, "in suspect mode the neighbours must go on to give evidence");
    row->known.tried_ms = 1000;
    row->known.confirmed_ms = 2000;
    row->verdict = OUTBOX_UNSETTLED;
    context.began_ms = 3000;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
    cr_expect(row->solo);
    cr_expect_str_eq(row->error, "connection reset");
}

Test(verdict, waiting_rows_that_shared_a_lost_session_are_sent_alone_from_then_on)
{
    struct row *row = add("a", 1, OUTBOX_UNSETTLED);
    row->entry = 5;
    row->attempts = 1;
    add("a", 2, OUTBOX_UNSETTLED)->entry = 6;
    context.loss = "connection reset";
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect(row->solo);
    cr_expect_eq(row->attempts, 1);
    cr_expect_eq(row->wait_ms, 0);
}

Test(verdict, a_delay_that_the_destination_asked_for_is_kept)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->retry_after_ms = 12345;
    add("a", 2, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->wait_ms, 12345);
    cr_expect_eq(verdict.tally.next_due_ms, 12345);
}

Test(verdict, few_held_rows_wait_on_their_own_and_their_channel_goes_on_at_half)
{
    struct row *held = add("a", 1, OUTBOX_HOLD);
    add_many(3, "a", OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(held->fate, ROW_SCHEDULED);
    cr_expect_eq(held->attempts, 0, "no attempt is counted");
    cr_expect(held->wait_ms >= 500 && held->wait_ms <= 1000);
    cr_expect(!rests("a"));
    cr_expect_eq(told("a")->few, 1);
    cr_expect_eq(told("a")->lent, 4);
}

Test(verdict, a_retry_that_is_held_again_does_not_slow_its_channel_down)
{
    struct row *held = add("a", 1, OUTBOX_HOLD);
    held->entry = 7;
    held->known.tried_ms = 1;
    held->known.confirmed_ms = 2;
    decide();
    cr_expect_eq(held->fate, ROW_SCHEDULED);
    cr_expect_eq(told("a")->few, 0);
    cr_expect(!rests("a"));
}

Test(verdict, half_of_the_settled_rows_is_no_minority)
{
    struct row *held = add("a", 1, OUTBOX_HOLD);
    add_many(1, "a", OUTBOX_CONFIRMED);
    add_many(5, "a", OUTBOX_UNSETTLED);
    decide();
    cr_expect_eq(held->fate, ROW_STAYS, "what was not settled says nothing");
    cr_expect(rests("a"));
}

Test(verdict, what_other_channels_settled_makes_no_minority)
{
    add("a", 1, OUTBOX_HOLD);
    add_many(9, "b", OUTBOX_CONFIRMED);
    decide();
    cr_expect(rests("a"));
    cr_expect(!rests("b"));
}

Test(verdict, one_that_names_a_time_makes_the_channel_rest_for_the_longest_of_them)
{
    struct row *held = add("a", 1, OUTBOX_HOLD);
    held->retry_after_ms = 5000;
    add("a", 2, OUTBOX_HOLD)->retry_after_ms = 7000;
    add_many(9, "a", OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(held->fate, ROW_STAYS);
    cr_expect(rests("a"));
    cr_expect_eq(told("a")->retry_after_ms, 7000);
}

Test(verdict, a_waiting_row_that_is_held_waits_on_where_its_channel_worked_since_its_last_try)
{
    struct row *held = add("a", 1, OUTBOX_HOLD);
    held->entry = 7;
    held->known.tried_ms = 500;
    held->known.confirmed_ms = 600;
    decide();
    cr_expect_eq(held->fate, ROW_SCHEDULED);
    cr_expect(!rests("a"));
    held->known.confirmed_ms = 400;
    decide();
    cr_expect_eq(held->fate, ROW_STAYS);
    cr_expect(rests("a"));
}

Test(verdict, a_wait_ends_when_the_message_expires)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->retry_after_ms = 540000;
    row->message.ttl_ms = 2000;
    add("a", 2, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->wait_ms, 2000);
}

Test(verdict, burials_are_told_once_for_a_channel_and_reason)
{
    add_many(7, "a", OUTBOX_REJECTED);
    batch_refuse(&batch, add("a", 1, OUTBOX_UNSETTLED), "expired", "too late");
    add_many(2, "b", OUTBOX_REJECTED);
    decide();
    cr_expect_eq(told("a")->buried[VERDICT_REJECTED].rows, 7);
    cr_expect_eq(told("a")->buried[VERDICT_REJECTED].first, &batch.rows[0]);
    cr_expect_eq(told("a")->buried[VERDICT_EXPIRED].rows, 1);
    cr_expect_eq(told("b")->buried[VERDICT_REJECTED].rows, 2);
    cr_expect_eq(verdict.tally.buried, 10);
}

Test(verdict, as_many_channels_as_rows_are_told_apart)
{
    static const char names[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
    for (size_t at = 0; at < 40; at++) {
        struct row *row = add("", (int64_t)at, at % 2 ? OUTBOX_HOLD : OUTBOX_CONFIRMED);
        row->message.channel = (struct outbox_bytes){names + at, 1};
    }
    decide();
    cr_assert_eq(verdict.count, 40);
    for (size_t at = 0; at < 40; at++) {
        cr_expect_eq(verdict.channels[at].wall != NULL, at % 2 == 1);
        cr_expect_eq(verdict.channels[at].settled, 1);
    }
}

/* ---- how long what is set aside waits ---- */

Test(verdict, what_is_held_again_and_again_waits_longer_and_longer)
{
    add_many(3, "a", OUTBOX_CONFIRMED);
    struct row *row = add("a", 1, OUTBOX_HOLD);
    row->entry = 7;
    row->waited_ms = 5000;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 0);
    cr_expect(row->wait_ms >= 5000 && row->wait_ms <= 10000, "%lld", (long long)row->wait_ms);
}

Test(verdict, in_haste_what_is_held_is_tried_again_soon)
{
    rules.hasty = true;
    add_many(3, "a", OUTBOX_CONFIRMED);
    struct row *row = add("a", 1, OUTBOX_HOLD);
    decide();
    cr_expect(row->wait_ms >= 50 && row->wait_ms <= 100, "%lld", (long long)row->wait_ms);
}

Test(verdict, in_haste_the_first_three_attempts_that_count_come_soon_and_the_fourth_in_its_time)
{
    rules = (struct verdict_rules){.max_attempts = 10, .hasty = true};
    add_many(3, "a", OUTBOX_CONFIRMED);
    struct row *rows[4];
    for (uint32_t attempts = 0; attempts < 4; attempts++) {
        rows[attempts] = add("a", 1 + attempts, OUTBOX_RETRY);
        rows[attempts]->attempts = attempts;
    }
    decide();
    cr_expect(rows[0]->wait_ms >= 50 && rows[0]->wait_ms <= 100, "%lld", (long long)rows[0]->wait_ms);
    cr_expect(rows[1]->wait_ms >= 50 && rows[1]->wait_ms <= 200, "%lld", (long long)rows[1]->wait_ms);
    cr_expect(rows[2]->wait_ms >= 50 && rows[2]->wait_ms <= 400, "%lld", (long long)rows[2]->wait_ms);
    cr_expect(rows[3]->wait_ms >= 500 && rows[3]->wait_ms <= 8000, "%lld", (long long)rows[3]->wait_ms);
}

Test(verdict, haste_cuts_no_time_that_the_destination_asked_for)
{
    rules.hasty = true;
    add_many(3, "a", OUTBOX_CONFIRMED);
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->retry_after_ms = 3000;
    decide();
    cr_expect_eq(row->wait_ms, 3000);
}

Test(verdict, where_few_attempts_are_allowed_haste_is_for_none_that_counts)
{
    rules.hasty = true; /* and three attempts */
    add_many(3, "a", OUTBOX_CONFIRMED);
    struct row *row = add("a", 1, OUTBOX_RETRY);
    decide();
    cr_expect(row->wait_ms >= 500 && row->wait_ms <= 1000, "%lld", (long long)row->wait_ms);
}

Test(verdict, what_is_held_waits_no_longer_than_a_channel_rests)
{
    rules.hold_max_ms = 60000;
    add_many(3, "a", OUTBOX_CONFIRMED);
    struct row *row = add("a", 1, OUTBOX_HOLD);
    row->entry = 7;
    row->waited_ms = 300000;
    decide();
    cr_expect_eq(row->wait_ms, 60000);
}

Test(verdict, what_was_never_sent_makes_no_majority)
{
    for (int64_t seq = 1; seq <= 6; seq++) {
        struct row *expired = add("a", seq, OUTBOX_REJECTED);
        expired->burial = "expired";
        expired->lent = false;
    }
    add_many(4, "a", OUTBOX_HOLD);
    decide();
    cr_expect(rests("a"), "all that was sent was held");
}
