#include <criterion/criterion.h>

#include "base/clock.h"
#include "store/mark.h"

static struct mark mark;
static struct mark_question question;
static int64_t now_ms;

static void setup(void)
{
    mark_init(&mark);
    now_ms = 1000;
}

static void teardown(void)
{
    mark_finish(&mark);
}

TestSuite(mark, .init = setup, .fini = teardown);

/* One refresh: the question, and what the database says. */
static void refresh_at(enum mark_place place, uint64_t filter, struct mark_answer answer)
{
    now_ms += 1000;
    cr_assert(mark_ask(&mark, place, filter, false, now_ms, &question));
    mark_learn(&mark, &question, &answer);
}

static void refresh(uint64_t filter, struct mark_answer answer)
{
    refresh_at(MARK_ORDINARY, filter, answer);
}

static int64_t start(uint64_t filter)
{
    bool full = false;
    int64_t seq = mark_start(&mark, filter, true, now_ms, &full);
    cr_assert(!full);
    return seq;
}

Test(mark, starts_at_the_least_and_learns_nothing_from_a_single_snapshot)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), MARK_LEAST);
}

Test(mark, rises_once_every_transaction_of_the_first_snapshot_has_ended)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7,
            (struct mark_answer){.highest = 200, .xmin = 59, .xid = 90, .first = 40, .first_filtered = 40});
    cr_expect_eq(start(7), MARK_LEAST, "transaction 59 may still hold seqs up to 100");
    refresh(7,
            (struct mark_answer){.highest = 300, .xmin = 60, .xid = 95, .first = 40, .first_filtered = 40});
    cr_expect_eq(start(7), 40);
}

Test(mark, passes_everything_that_was_handed_out_when_none_of_it_lives)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 60, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), 101);
}

Test(mark, never_uses_a_cached_sequence)
{
    refresh(7, (struct mark_answer){
                   .highest = -1, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7, (struct mark_answer){
                   .highest = -1, .xmin = 70, .xid = 70, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), MARK_LEAST);
}

Test(mark, holds_for_its_own_filter_only)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7,
            (struct mark_answer){.highest = 100, .xmin = 60, .xid = 60, .first = 10, .first_filtered = 90});
    cr_expect_eq(start(7), 90);
    cr_expect_eq(start(8), 10, "another set of resting channels must see the rows that were filtered out");
}

Test(mark, that_of_claims_for_the_others_stays_however_often_the_ordinary_filter_changes)
{
    int64_t highest = 100;
    refresh(7,
            (struct mark_answer){
                .highest = highest, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh_at(
        MARK_OTHERS, 8,
        (struct mark_answer){.highest = highest, .xmin = 60, .xid = 60, .first = 10, .first_filtered = 91});
    for (uint64_t filter = 20; filter < 25; filter++) {
        refresh(filter, (struct mark_answer){.highest = highest,
                                             .xmin = 60,
                                             .xid = 60,
                                             .first = 10,
                                             .first_filtered = 70 + (int64_t)filter});
        cr_expect_eq(start(filter), 70 + (int64_t)filter);
        cr_expect_eq(start(8), 91);
    }
    cr_expect_eq(start(20), 10);
    mark_reset(&mark);
    cr_expect_eq(start(8), MARK_LEAST);
    cr_expect_eq(start(24), MARK_LEAST);
}

Test(mark, a_seq_that_is_settled_is_so_for_whoever_asks_next)
{
    const struct mark_answer begins = {
        .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE};
    refresh(7, begins);
    refresh(7,
            (struct mark_answer){.highest = 200, .xmin = 60, .xid = 70, .first = 10, .first_filtered = 90});
    refresh_at(MARK_OTHERS, 8,
               (struct mark_answer){
                   .highest = 300, .xmin = 69, .xid = 80, .first = 10, .first_filtered = MARK_NONE});
    cr_expect_eq(start(8), 101, "200 is not, while 69 may hold some: %ld", (long)start(8));
    refresh_at(
        MARK_OTHERS, 8,
        (struct mark_answer){.highest = 300, .xmin = 69, .xid = 81, .first = 20, .first_filtered = 150});
    cr_expect_eq(start(8), 101);
    cr_expect_eq(start(7), 90);
    cr_expect_eq(start(9), 20);
    refresh_at(
        MARK_OTHERS, 8,
        (struct mark_answer){.highest = 300, .xmin = 70, .xid = 82, .first = 20, .first_filtered = 150});
    cr_expect_eq(start(8), 150);
}

Test(mark, ordinary_claims_do_not_take_the_turns_of_those_for_the_others)
{
    cr_expect(mark_ask(&mark, MARK_ORDINARY, 7, false, now_ms, &question));
    cr_expect(mark_ask(&mark, MARK_OTHERS, 8, false, now_ms, &question));
    cr_expect(!mark_ask(&mark, MARK_OTHERS, 8, false, now_ms, &question));
}

Test(mark, a_reset_forgets_it_and_every_answer_on_its_way)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    now_ms += 1000;
    cr_assert(mark_ask(&mark, MARK_ORDINARY, 7, false, now_ms, &question));
    mark_reset(&mark);
    mark_learn(&mark, &question,
               &(struct mark_answer){
                   .highest = 100, .xmin = 99, .xid = 99, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), MARK_LEAST);
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 99, .xid = 99, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), MARK_LEAST, "the pair of before the reset must not be used either");
}

Test(mark, only_one_worker_refreshes_at_a_time)
{
    cr_expect(mark_ask(&mark, MARK_ORDINARY, 7, false, now_ms, &question));
    cr_expect(!mark_ask(&mark, MARK_ORDINARY, 7, false, now_ms, &question));
    cr_expect(mark_ask(&mark, MARK_ORDINARY, 7, false, now_ms + 1000, &question));
}

Test(mark, an_xid_that_was_taken_before_the_sequence_was_read_teaches_nothing)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 0, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 60, .xid = 0, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), MARK_LEAST);
}

Test(mark, an_idle_look_takes_no_transaction_id_while_there_is_nothing_to_learn)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 61, .xid = 61, .first = MARK_NONE, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), 101);
    cr_expect(!mark_ask(&mark, MARK_ORDINARY, 7, true, now_ms + 1000, &question));
    cr_expect(mark_ask(&mark, MARK_ORDINARY, 7, true, now_ms + 10001, &question),
              "but now and then it looks after others' leavings");
}

Test(mark, a_full_poll_comes_once_a_minute_and_finds_contradictions)
{
    bool full = false;
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 60, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    int64_t later_ms = clock_now_ms() + 61000;
    cr_expect_eq(mark_start(&mark, 7, true, later_ms, &full), MARK_LEAST);
    cr_expect(full);
    cr_expect_eq(mark_start(&mark, 7, true, later_ms + 1, &full), 101);
    cr_expect(!full);
    cr_expect(!mark_contradicted(&mark, 101));
    cr_expect(mark_contradicted(&mark, 55));
    cr_expect_eq(start(7), MARK_LEAST);
}

Test(mark, a_sequence_that_begins_anew_is_noticed)
{
    struct mark_answer answer = {
        .highest = 100, .xid = 10, .xmin = 10, .first = MARK_NONE, .first_filtered = MARK_NONE};
    cr_assert(mark_ask(&mark, MARK_ORDINARY, 7, false, 1000, &question));
    mark_learn(&mark, &question, &answer);
    cr_assert(mark_ask(&mark, MARK_ORDINARY, 7, false, 2000, &question));
    mark_learn(&mark, &question, &answer);
    bool full = false;
    cr_assert_eq(mark_start(&mark, 7, true, 2000, &full), 101);
    answer = (struct mark_answer){
        .highest = 3, .xid = 12, .xmin = 12, .first = MARK_NONE, .first_filtered = MARK_NONE};
    cr_assert(mark_ask(&mark, MARK_ORDINARY, 7, false, 3000, &question));
    mark_learn(&mark, &question, &answer);
    cr_expect_eq(mark_start(&mark, 7, true, 3000, &full), MARK_LEAST);
}

Test(mark, a_sequence_that_begins_anew_is_noticed_before_anything_is_settled)
{
    for (int64_t highest = 0; highest <= 3; highest += 3) {
        mark_reset(&mark);
        refresh(7,
                (struct mark_answer){
                    .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
        refresh(
            7,
            (struct mark_answer){
                .highest = highest, .xmin = 60, .xid = 70, .first = MARK_NONE, .first_filtered = MARK_NONE});
        cr_expect_eq(start(7), MARK_LEAST, "%ld", (long)highest);
    }
}

Test(mark, a_sequence_that_begins_anew_is_noticed_also_where_an_old_row_is_left)
{
    struct mark_answer answer = {
        .highest = 100, .xid = 10, .xmin = 10, .first = 2, .first_filtered = MARK_NONE};
    refresh(7, answer);
    refresh(7, answer);
    cr_assert_eq(start(7), 101);
    refresh(7, (struct mark_answer){
                   .highest = 3, .xid = 12, .xmin = 12, .first = 2, .first_filtered = MARK_NONE});
    cr_expect_eq(start(7), MARK_LEAST);
}

Test(mark, knows_a_row_of_seq_zero_or_less_from_none)
{
    refresh(7, (struct mark_answer){
                   .highest = 100, .xmin = 50, .xid = 60, .first = MARK_NONE, .first_filtered = MARK_NONE});
    refresh(7, (struct mark_answer){.highest = 100, .xmin = 60, .xid = 60, .first = -3, .first_filtered = 0});
    cr_expect_eq(start(7), 0);
    cr_expect_eq(start(8), -3);
    cr_expect(mark_contradicted(&mark, -4) && !mark_contradicted(&mark, MARK_NONE));
}
