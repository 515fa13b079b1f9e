/* kit_content - what may stand in a message: nothing, much, and what nobody expects. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "kit/kit_tests.h"

enum { PUBLISH_MS = 10000, BULK_MS = 60000 };

static void bare_message(struct kit_stage *stage)
{
    const struct kit_shape bare = {.bare = true};
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_confirmed(&session, 10, &bare, PUBLISH_MS, "a message without key, ids and headers");
    kit_end(stage, &session);
}

static void guarded_message(struct kit_stage *stage)
{
    static const struct kit_shape shapes[] = {
        {.bare = false}, {.bare = true}, {.payload = {"", 0}}, {.payload = {"7", 1}}};
    struct kit_session session;
    kit_begin(stage, &session);
    for (size_t at = 0; at < sizeof shapes / sizeof shapes[0]; at++) {
        struct kit_messages messages;
        struct kit_batch batch;
        if (!kit_messages_make_guarded(&messages, &shapes[at])) {
            kit_fail(stage, "the kit is out of memory");
        }
        kit_publish(&batch, &session, &messages, PUBLISH_MS);
        bool empty = shapes[at].payload.ptr && shapes[at].payload.len == 0;
        if (batch.state != OUTBOX_SESSION_BUSY && (!empty || kit_count(&batch, OUTBOX_REJECTED) == 0)) {
            kit_expect_confirmed(&batch, &session, "a message whose texts end at unreadable memory");
        }
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
    }
    kit_end(stage, &session);
}

/* As a relay of a later minor may lend them. */
static void wide_headers(struct kit_stage *stage)
{
    const struct kit_shape wide = {.wide = true};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    size_t since_1_3 = offsetof(struct outbox_backend, option_size) + sizeof stage->table->option_size;
    if (stage->table->size < since_1_3) {
        return; /* it was built when there was no other distance */
    }
    kit_begin(stage, &session);
    if (!kit_messages_make_guarded(&messages, &wide)) {
        kit_fail(stage, "the kit is out of memory");
    }
    kit_hint(stage, "headers[index] is not where header `index` stands: read them by outbox_header_at()");
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    kit_hint(stage, "");
    if (batch.state != OUTBOX_SESSION_BUSY) {
        kit_expect_confirmed(&batch, &session, "a message whose headers are larger than yours");
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

/* Confirmed, or refused for good: a broker may have limits of its own. */
static void expect_taken_or_rejected(struct kit_session *session, const struct kit_shape *shape,
                                     const char *what)
{
    struct kit_messages messages;
    struct kit_batch batch;
    char text[KIT_TEXT_BYTES];
    kit_make(session->stage, &messages, 3, shape);
    kit_publish(&batch, session, &messages, PUBLISH_MS);
    if (kit_count(&batch, OUTBOX_REJECTED) == messages.count && batch.state == OUTBOX_SESSION_OK) {
        (void)snprintf(text, sizeof text, "%s is REJECTED, and a dead letter: %.200s", what,
                       batch.answers[0].reason);
        kit_note(session->stage, text);
    } else if (batch.state != OUTBOX_SESSION_BUSY) {
        kit_expect_confirmed(&batch, session, what);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

static void odd_payloads(struct kit_stage *stage)
{
    const struct kit_shape empty = {.payload = {"", 0}};
    const struct kit_shape zeros = {.payload = {"\0a\0\xff\0", 6}};
    const struct kit_shape no_json = {.payload = {"1,\"id\":\"kit\"}", 14}};
    struct kit_session session;
    kit_begin(stage, &session);
    expect_taken_or_rejected(&session, &empty, "an empty payload");
    expect_taken_or_rejected(&session, &zeros, "a payload with NUL bytes");
    expect_taken_or_rejected(&session, &no_json, "a payload that only calls itself JSON");
    kit_end(stage, &session);
}

static void long_texts(struct kit_stage *stage)
{
    char text[255];
    memset(text, 'k', sizeof text);
    const struct outbox_header headers[] = {{{"kit-long", 8}, {text, sizeof text}, OUTBOX_VALUE_STRING}};
    const struct kit_shape longs = {.key = {text, sizeof text}, .headers = headers, .header_count = 1};
    struct kit_session session;
    kit_begin(stage, &session);
    expect_taken_or_rejected(&session, &longs, "a message with a key and a header of 255 bytes");
    kit_end(stage, &session);
}

/* ---- what a producer may write ---- */

enum { LONG_BYTES = 255, HUGE_BYTES = 1 << 20, MANY = 2000, ODD = 1 };

static const char hostile_text[] = "a\r\nkit-injected: yes\r\n\r\n\x01${channel}%s%n\xc3\xbf'\"; --";
static const char wild_text[] = "kit.>.*/#/+ \t.. ?&=,";
static char long_text[LONG_BYTES];
static char huge_text[HUGE_BYTES];
static char name_of_many[MANY][16];
static struct outbox_header huge_headers[] = {
    {{"kit-huge", 8}, {huge_text, HUGE_BYTES}, OUTBOX_VALUE_STRING}};
static struct outbox_header many_headers[MANY];
static struct outbox_header hostile_headers[] = {
    {{hostile_text, sizeof hostile_text - 1}, {"yes", 3}, OUTBOX_VALUE_STRING},
    {{"kit-hostile", 11}, {hostile_text, sizeof hostile_text - 1}, OUTBOX_VALUE_STRING}};
static struct outbox_header long_name[] = {{{huge_text, 10000}, {"yes", 3}, OUTBOX_VALUE_STRING}};

/* Columns of outbox.message, and what stands in one of them; all that its constraints admit. */
static const struct oddity {
    const char *what;
    size_t offset; /* of a text in struct outbox_message; 0 = these headers */
    const char *text;
    size_t len;
    const struct outbox_header *headers;
    size_t header_count;
} oddities[] = {
#define COLUMN(name, text, len)                                                                              \
    {                                                                                                        \
        "a " #name " of odd characters", offsetof(struct outbox_message, name), text, len, NULL, 0           \
    }
    COLUMN(channel, hostile_text, sizeof hostile_text - 1),
    COLUMN(channel, wild_text, sizeof wild_text - 1),
    COLUMN(type, hostile_text, sizeof hostile_text - 1),
    COLUMN(key, hostile_text, sizeof hostile_text - 1),
    COLUMN(correlation_id, hostile_text, sizeof hostile_text - 1),
    COLUMN(causation_id, hostile_text, sizeof hostile_text - 1),
    COLUMN(reply_to, hostile_text, sizeof hostile_text - 1),
    COLUMN(content_type, hostile_text, sizeof hostile_text - 1),
#undef COLUMN
    {"a channel of 255 bytes", offsetof(struct outbox_message, channel), long_text, LONG_BYTES, NULL, 0},
    {"a type of 255 bytes", offsetof(struct outbox_message, type), long_text, LONG_BYTES, NULL, 0},
    {"headers of odd characters", 0, NULL, 0, hostile_headers, 2},
    {"a header of 1 MiB", 0, NULL, 0, huge_headers, 1},
    {"a header's name of 10,000 bytes", 0, NULL, 0, long_name, 1},
    {"2,000 headers", 0, NULL, 0, many_headers, MANY},
};

static void fill_texts(void)
{
    memset(long_text, 'k', sizeof long_text);
    memset(huge_text, 'k', sizeof huge_text);
    for (size_t at = 0; at < MANY; at++) {
        (void)snprintf(name_of_many[at], sizeof name_of_many[at], "kit-%zu", at);
        many_headers[at] = (struct outbox_header){
            {name_of_many[at], strlen(name_of_many[at])}, {long_text, 64}, OUTBOX_VALUE_STRING};
    }
}

static void put_oddity(struct outbox_message *message, size_t index, size_t round)
{
    const struct oddity *odd = &oddities[round];
    if (index != ODD) {
        return;
    }
    if (odd->offset > 0) {
        *(struct outbox_bytes *)(void *)((char *)message + odd->offset) =
            (struct outbox_bytes){odd->text, odd->len};
    } else {
        message->headers = odd->headers;
        message->header_count = odd->header_count;
    }
}

/* Whether it can be carried is the broker's business. That it costs nobody anything is the backend's. */
static void expect_no_harm(struct kit_session *session, const struct kit_shape *shape, const char *what)
{
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, 3, shape);
    kit_publish(&batch, session, &messages, PUBLISH_MS);
    if (batch.state == OUTBOX_SESSION_LOST) {
        kit_fail(session->stage,
                 "%s cost the session, and would with each attempt: say REJECTED of such a message, before "
                 "the wire (%s)",
                 what, session->error.text);
    }
    for (size_t at = 0; at < messages.count; at++) {
        if (at != ODD && batch.answers[at].settled && batch.answers[at].verdict != OUTBOX_CONFIRMED) {
            kit_fail(session->stage, "message %zu was not CONFIRMED because of %s in message %d: %s", at + 1,
                     what, ODD + 1, batch.answers[at].reason);
        }
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

static void odd_texts(struct kit_stage *stage)
{
    struct kit_session session;
    fill_texts();
    kit_begin(stage, &session);
    for (size_t round = 0; round < sizeof oddities / sizeof oddities[0]; round++) {
        const struct kit_shape shape = {.alter = put_oddity, .round = round};
        expect_no_harm(&session, &shape, oddities[round].what);
    }
    kit_publish_plain(&session, 1, "a message after odd ones");
    kit_end(stage, &session);
}

/* ---- numbers ---- */

static void put_extremes(struct outbox_message *message, size_t index, size_t round)
{
    static const int64_t numbers[] = {1, (int64_t)1 << 32, INT64_MAX / 1000, INT64_MAX};
    if (index == ODD) {
        message->ttl_ms = numbers[round];
        message->created_at_us = round % 2 == 0 ? -numbers[round] : numbers[round];
        message->seq = round % 2 == 0 ? numbers[round] : -numbers[round];
        message->attempt = UINT32_MAX;
    }
}

static void put_no_time(struct outbox_message *message, size_t index, size_t round)
{
    (void)round;
    message->ttl_ms = index == ODD ? 0 : message->ttl_ms;
}

static void extreme_numbers(struct kit_stage *stage)
{
    const struct kit_shape late = {.alter = put_no_time};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    for (size_t round = 0; round < 4; round++) {
        const struct kit_shape shape = {.alter = put_extremes, .round = round};
        expect_no_harm(&session, &shape, "extreme times and numbers");
    }
    kit_make(stage, &messages, 3, &late);
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    if (batch.answers[ODD].settled && batch.answers[ODD].verdict == OUTBOX_CONFIRMED) {
        kit_note(stage, "a message whose ttl_ms was over was sent: settle such a one as UNSETTLED");
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

/* ---- sizes ---- */

/* One that cannot be carried must not be its neighbours' end. */
static void large_among_small(struct kit_session *session)
{
    const struct kit_shape mixed = {.odd_at = 3, .odd_payload = {NULL, (size_t)16 << 20}};
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, 5, &mixed);
    kit_publish(&batch, session, &messages, BULK_MS);
    for (size_t at = 0; at < 5; at++) {
        if (at != 2 && batch.answers[at].settled && batch.answers[at].verdict == OUTBOX_REJECTED) {
            kit_fail(session->stage, "message %zu was REJECTED because message 3 has 16 MiB: %s", at + 1,
                     batch.answers[at].reason);
        }
    }
    if (batch.state == OUTBOX_SESSION_LOST) {
        kit_disconnect(session);
        kit_connect(session);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

static void large_payload(struct kit_stage *stage)
{
    const struct kit_shape large = {.payload = {NULL, (size_t)16 << 20}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_make(stage, &messages, 1, &large);
    kit_publish(&batch, &session, &messages, BULK_MS);
    if (batch.state != OUTBOX_SESSION_OK ||
        kit_count(&batch, OUTBOX_CONFIRMED) + kit_count(&batch, OUTBOX_REJECTED) != 1) {
        kit_fail(stage,
                 "a payload of 16 MiB is neither confirmed nor rejected: say REJECTED for what the broker "
                 "will never "
                 "take (%s)",
                 batch.answers[0].settled ? batch.answers[0].reason : session.error.text);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    large_among_small(&session);
    kit_publish_plain(&session, 1, "a message after one of 16 MiB");
    kit_end(stage, &session);
}

const struct kit_test kit_content_tests[] = {
    {"a message with nothing but what all messages have is confirmed", bare_message, 20000, false, false},
    {"no text is read beyond its end", guarded_message, 40000, false, false},
    {"headers are found where header_size says", wide_headers, 20000, false, false},
    {"empty payloads and NUL bytes are confirmed or rejected", odd_payloads, 20000, false, false},
    {"a key and a header of 255 bytes are confirmed or rejected", long_texts, 20000, false, false},
    {"no odd text costs the process, the session or another message", odd_texts, 60000, false, false},
    {"nor do extreme times and numbers", extreme_numbers, 40000, false, false},
    {"a payload of 16 MiB is confirmed or rejected", large_payload, 90000, false, false},
    {NULL, NULL, 0, false, false},
};
