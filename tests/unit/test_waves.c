/* Order by key inside a batch: which rows may be in flight together. */
#include <criterion/criterion.h>
#include <string.h>

#include "message/batch.h"

static struct batch batch;

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 10, &err), 0);
}

static void teardown(void)
{
    batch_finish(&batch);
}

TestSuite(waves, .init = setup, .fini = teardown);

static struct row *add(const char *channel, const char *key)
{
    struct row *row = batch_add(&batch);
    row->message.channel = (struct outbox_bytes){channel, strlen(channel)};
    row->message.key = (struct outbox_bytes){key ? key : "", key ? strlen(key) : 0};
    row->has_key = key != NULL;
    return row;
}

static void order(void)
{
    struct err err = {0};
    cr_assert_eq(batch_order_by_key(&batch, &err), 0);
}

/* Lends the next wave and settles each message of it. */
static size_t wave(enum outbox_verdict verdict)
{
    struct outbox_batch *lent = batch_lend(&batch, 0);
    for (size_t at = 0; at < lent->count; at++) {
        lent->settle(lent, at, verdict, "why", 0);
    }
    batch_take_back(&batch, 0);
    return lent->count;
}

Test(waves, have_one_message_per_key_and_all_that_have_none)
{
    (void)add("a", "k");
    (void)add("a", "k");
    (void)add("a", NULL);
    (void)add("a", NULL);
    (void)add("a", "other");
    order();
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 4);
    cr_assert(batch_has_wave(&batch));
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 1);
    cr_expect(!batch_has_wave(&batch));
}

Test(waves, the_same_key_in_two_channels_is_two_keys)
{
    (void)add("a", "k");
    (void)add("b", "k");
    order();
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 2);
}

Test(waves, an_empty_key_is_a_key)
{
    (void)add("a", "");
    (void)add("a", "");
    order();
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 1);
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 1);
}

Test(waves, nothing_follows_a_row_of_its_key_that_was_not_confirmed)
{
    static const enum outbox_verdict verdicts[] = {OUTBOX_HOLD, OUTBOX_RETRY, OUTBOX_REJECTED,
                                                   OUTBOX_UNSETTLED};
    for (size_t at = 0; at < sizeof verdicts / sizeof verdicts[0]; at++) {
        batch_clear(&batch);
        (void)add("a", "k");
        struct row *second = add("a", "k");
        struct row *third = add("a", "k");
        order();
        cr_expect_eq(wave(verdicts[at]), 1);
        cr_expect(!batch_has_wave(&batch), "verdict %d", (int)verdicts[at]);
        cr_expect(!second->lent && !third->lent && second->verdict == OUTBOX_UNSETTLED);
    }
}

Test(waves, a_row_that_was_refused_before_it_was_sent_stops_its_key_in_this_batch)
{
    struct row *expired = add("a", "k");
    (void)add("a", "k");
    (void)add("a", "other");
    batch_refuse(&batch, expired, "expired", "too late");
    order();
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 1);
    cr_expect(!batch_has_wave(&batch));
}

Test(waves, without_order_the_whole_batch_is_one_wave)
{
    (void)add("a", "k");
    (void)add("a", "k");
    cr_expect_eq(wave(OUTBOX_CONFIRMED), 2);
    cr_expect(!batch_has_wave(&batch));
}

Test(waves, a_message_is_lent_once)
{
    (void)add("a", NULL);
    cr_expect_eq(wave(OUTBOX_UNSETTLED), 1);
    cr_expect(!batch_has_wave(&batch), "what was not sent waits for the next claim");
}
