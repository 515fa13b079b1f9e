/* The product's specification: what each verdict does to a row, under which evidence. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "machine/verdict.h"

static struct batch batch;
static struct channels *channels;
static struct backoff backoff;
static struct tally tally;
static struct verdict_rules rules;
static struct verdict_context context;
static const struct log quiet = {.level = LOG_ERROR, .fd = STDERR_FILENO};

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 10, &err), 0);
    cr_assert_eq(channels_new(&channels, 1000, 60000, &err), 0);
    backoff_init(&backoff, 1000, 600000);
    rules = (struct verdict_rules){.max_attempts = 3};
    context = (struct verdict_context){.rules = &rules,
                                       .channels = channels,
                                       .backoff = &backoff,
                                       .log = &quiet,
                                       .began_ms = 1000,
                                       .now_ms = 1100};
}

static void teardown(void)
{
    batch_finish(&batch);
    channels_free(channels);
}

TestSuite(verdict, .init = setup, .fini = teardown);

static struct row *add(const char *channel, int64_t seq, enum outbox_verdict verdict)
{
    struct row *row = batch_add(&batch);
    row->message.channel = (struct outbox_bytes){channel, strlen(channel)};
    row->message.id = (struct outbox_bytes){"id", 2};
    row->message.seq = seq;
    row->tried_age_ms = -1;
    row->lent = true;
    row->verdict = verdict;
    row->error = "why";
    return row;
}

static void decide(void)
{
    batch.lent.count = batch.count;
    verdict_decide(&batch, &context, &tally);
}

static bool rests(const char *channel)
{
    struct text list;
    text_init(&list, 1000);
    (void)channels_resting(channels, context.now_ms, &list);
    bool found = strstr(text_get(&list), channel) != NULL;
    text_finish(&list);
    return found;
}

Test(verdict, a_confirmed_row_is_deleted)
{
    struct row *row = add("a", 1, OUTBOX_CONFIRMED);
    decide();
    cr_expect_eq(row->fate, ROW_DELETED);
    cr_expect_eq(tally.confirmed, 1);
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
        context.began_ms = context.now_ms += 100000;
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
    channels_confirmed(channels, bytes_of("a"), 5000);
    context.began_ms = context.now_ms = 9000;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
}

Test(verdict, a_waiting_row_counts_only_against_confirms_since_its_last_try)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->entry = 77;
    row->attempts = 1;
    row->tried_age_ms = 400; /* tried at 600 */
    channels_confirmed(channels, bytes_of("a"), 500);
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
    cr_expect(!rests("a"), "a single waiting row must not stop a channel that may well work");
    channels_confirmed(channels, bytes_of("a"), 700);
    decide();
    cr_expect_eq(row->attempts, 2);
}

Test(verdict, the_last_attempt_makes_a_dead_letter)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    row->entry = 77;
    row->attempts = 2;
    add("a", 2, OUTBOX_CONFIRMED);
    row->tried_age_ms = 0;
    decide();
    cr_expect_eq(row->fate, ROW_BURIED);
    cr_expect_str_eq(row->burial, "attempts");
    cr_expect_eq(row->attempts, 3);
    cr_expect_eq(tally.buried, 1);
}

Test(verdict, max_attempts_zero_never_gives_up)
{
    struct row *row = add("a", 1, OUTBOX_RETRY);
    rules.max_attempts = 0;
    row->entry = 77;
    row->attempts = 100000;
    add("a", 2, OUTBOX_CONFIRMED);
    row->tried_age_ms = 0;
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
    cr_expect_eq(tally.unsettled, 2);
    cr_expect_eq(tally.confirmed, 1);
}

Test(verdict, a_session_lost_over_a_single_row_is_a_refusal_under_the_rule_of_evidence)
{
    struct row *row = add("a", 1, OUTBOX_UNSETTLED);
    context.loss = "connection reset";
    context.single = true;
    decide();
    cr_expect_eq(row->fate, ROW_STAYS);
    cr_expect(!rests("a"), "in suspect mode the neighbours must go on to give evidence");
    channels_confirmed(channels, bytes_of("a"), 2000);
    row->verdict = OUTBOX_UNSETTLED;
    context.began_ms = context.now_ms = 3000;
    decide();
    cr_expect_eq(row->fate, ROW_SCHEDULED);
    cr_expect_eq(row->attempts, 1);
    cr_expect(row->solo);
    cr_expect_str_eq(row->error, "connection reset");
}

Test(verdict, a_second_single_lost_without_a_confirm_in_between_rests_the_channel)
{
    struct row *row = add("a", 1, OUTBOX_UNSETTLED);
    context.loss = "not confirmed";
    context.single = true;
    decide();
    cr_expect(!rests("a"));
    row->message.seq = 2;
    decide();
    cr_expect(rests("a"), "a queue that confirms nothing must not stall the whole process");
    cr_expect_eq(row->attempts, 0);
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
    cr_expect_eq(tally.next_due_ms, 12345);
}
