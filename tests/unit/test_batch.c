#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message/batch.h"

static struct batch batch;
static struct row *row;

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(batch_init(&batch, 3, &err), 0);
    row = batch_add(&batch);
}

static void teardown(void)
{
    batch_finish(&batch);
}

TestSuite(batch, .init = setup, .fini = teardown);

static void headers(const char *json)
{
    batch_set_headers(&batch, row, (struct outbox_bytes){json, strlen(json)});
}

Test(batch, headers_keep_name_type_and_text_of_every_scalar)
{
    headers("{\"s\":\"x\\u00fc\",\"i\":9007199254740993,\"d\":1.5,\"t\":true,\"f\":false,\"n\":null}");
    static const struct {
        const char *name, *value;
        enum outbox_value_type type;
    } wanted[] = {{"s", "x\xC3\xBC", OUTBOX_VALUE_STRING}, {"i", "9007199254740993", OUTBOX_VALUE_INT},
                  {"d", "1.5", OUTBOX_VALUE_DOUBLE},       {"t", "true", OUTBOX_VALUE_BOOL},
                  {"f", "false", OUTBOX_VALUE_BOOL},       {"n", "", OUTBOX_VALUE_NULL}};
    cr_assert_eq(row->verdict, OUTBOX_UNSETTLED, "%s", row->error);
    cr_assert_eq(row->message.header_count, 6);
    for (size_t at = 0; at < 6; at++) {
        const struct outbox_header *header = &row->message.headers[at];
        cr_expect_eq(header->type, wanted[at].type, "%s", wanted[at].name);
        cr_expect_eq(strncmp(header->name.ptr, wanted[at].name, header->name.len), 0);
        cr_expect_eq(header->value.len, strlen(wanted[at].value));
        cr_expect_eq(memcmp(header->value.ptr, wanted[at].value, header->value.len), 0);
    }
}

Test(batch, a_reason_that_quotes_half_a_character_stays_valid_text)
{
    headers("{\"a\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1"
            "\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F"
            "\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F"
            "\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F"
            "\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\xD1\x8F\":{}}");
    cr_assert_eq(row->verdict, OUTBOX_REJECTED);
    size_t len = strlen(row->error);
    for (size_t at = 0; at < len; at++) {
        bool lead = (unsigned char)row->error[at] == 0xD1;
        cr_expect(!lead || (unsigned char)row->error[at + 1] == 0x8F, "half a character at %zu", at);
    }
}

Test(batch, no_headers_cost_nothing)
{
    headers("{}");
    cr_expect_eq(row->message.header_count, 0);
    cr_expect_eq(row->verdict, OUTBOX_UNSETTLED);
}

Test(batch, headers_that_no_broker_carries_reject_the_row)
{
    static const char *const bad[] = {"{\"a\":[1]}",       "{\"a\":{}}",       "[]", "{\"a\":1",
                                      "{\"a\":1,\"a\":2}", "{\"a\":\"\xFF\"}", ""};
    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        row->verdict = OUTBOX_UNSETTLED;
        headers(bad[at]);
        cr_expect_eq(row->verdict, OUTBOX_REJECTED, "%s", bad[at]);
        cr_expect(strlen(row->error) > 0);
    }
}

Test(batch, headers_beyond_any_measure_reject_the_row)
{
    size_t bytes = (16 << 20) + 1;
    char *json = malloc(bytes + 1);
    cr_assert_not_null(json);
    memset(json, ' ', bytes);
    memcpy(json, "{\"a\":1}", 7);
    json[bytes] = '\0';
    headers(json);
    cr_expect_eq(row->verdict, OUTBOX_REJECTED);
    cr_expect(strstr(row->error, "larger than 16777216 bytes"), "%s", row->error);
    row->verdict = OUTBOX_UNSETTLED;
    json[bytes - 1] = '\0';
    headers(json);
    cr_expect_eq(row->verdict, OUTBOX_UNSETTLED);
    cr_expect_eq(row->message.header_count, 1);
    free(json);
}

/* {"h0":1,"h1":1,...} */
static void many_headers(size_t count)
{
    char *json = malloc(count * 16 + 3);
    cr_assert_not_null(json);
    size_t len = 0;
    for (size_t at = 0; at < count; at++) {
        len += (size_t)snprintf(json + len, 16, "%s\"h%zu\":1", at > 0 ? "," : "{", at);
    }
    json[len++] = '}';
    json[len] = '\0';
    headers(json);
    free(json);
}

Test(batch, more_headers_than_anybody_needs_reject_the_row)
{
    many_headers(1000);
    cr_expect_eq(row->verdict, OUTBOX_UNSETTLED);
    cr_expect_eq(row->message.header_count, 1000);
    many_headers(1001);
    cr_expect_eq(row->verdict, OUTBOX_REJECTED);
    cr_expect_str_eq(row->error, "there are more than 1000 headers");
}

Test(batch, lends_only_the_rows_that_are_not_settled_yet)
{
    struct row *refused = batch_add(&batch);
    struct row *last = batch_add(&batch);
    batch_refuse(&batch, refused, "expired", "too late");
    struct outbox_batch *lent = batch_lend(&batch, 0);
    cr_assert_eq(lent->count, 2);
    cr_expect_eq(lent->messages[1], &last->message);
    lent->settle(lent, 1, OUTBOX_CONFIRMED, NULL, 0);
    cr_expect_eq(last->verdict, OUTBOX_CONFIRMED);
    cr_expect_eq(refused->verdict, OUTBOX_REJECTED);
    cr_expect_eq(row->verdict, OUTBOX_UNSETTLED);
}

Test(batch, a_message_settled_twice_is_unknown_again_and_noticed)
{
    struct outbox_batch *lent = batch_lend(&batch, 0);
    lent->settle(lent, 0, OUTBOX_CONFIRMED, NULL, 0);
    lent->settle(lent, 0, OUTBOX_CONFIRMED, NULL, 0);
    cr_expect_eq(batch.misuses, 1);
    cr_expect_eq(row->verdict, OUTBOX_UNSETTLED);
}

Test(batch, settling_after_return_or_out_of_range_changes_nothing)
{
    struct outbox_batch *lent = batch_lend(&batch, 0);
    lent->settle(lent, 1, OUTBOX_CONFIRMED, NULL, 0);
    lent->settle(lent, 0, (enum outbox_verdict)17, NULL, 0);
    batch_take_back(&batch, 0);
    lent->settle(lent, 0, OUTBOX_CONFIRMED, NULL, 0);
    cr_expect_eq(batch.misuses, 3);
    cr_expect_eq(row->verdict, OUTBOX_UNSETTLED);
}

Test(batch, reasons_are_stored_as_one_clean_line)
{
    struct outbox_batch *lent = batch_lend(&batch, 0);
    lent->settle(lent, 0, OUTBOX_RETRY, "no\nroute\x01\xFF", 0);
    cr_expect_str_eq(row->error, "no\\nroute\\u0001\xEF\xBF\xBD");
}

Test(batch, takes_no_more_rows_than_it_has_room_for)
{
    cr_expect_not_null(batch_add(&batch));
    cr_expect_not_null(batch_add(&batch));
    cr_expect_null(batch_add(&batch));
}
