/* kit_contract - what outbox_backend.h asks of every backend, against a destination that works. */
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "kit/kit_tests.h"
#include "plugin/backend.h"

enum { PUBLISH_MS = 10000, BULK_MS = 60000 };

void kit_begin(struct kit_stage *stage, struct kit_session *session)
{
    kit_open(stage);
    kit_session_new(session, stage);
    kit_connect(session);
}

void kit_end(struct kit_stage *stage, struct kit_session *session)
{
    kit_disconnect(session);
    kit_session_free(session);
    kit_close(stage);
}

bool kit_has_interrupt(struct kit_stage *stage)
{
    bool has = BACKEND_HAS(stage->table, interrupt);
    if (!has) {
        kit_note(stage, "interrupt() is not implemented: a stop has to wait for the deadline");
    }
    return has;
}

void kit_make(struct kit_stage *stage, struct kit_messages *messages, size_t count,
              const struct kit_shape *shape)
{
    static const struct kit_shape plain;
    if (!kit_messages_make(messages, count, shape ? shape : &plain)) {
        kit_fail(stage, "the kit is out of memory");
    }
}

static void publish_confirmed(struct kit_session *session, size_t count, const struct kit_shape *shape,
                              int64_t wait_ms, const char *what)
{
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, count, shape);
    kit_publish(&batch, session, &messages, wait_ms);
    kit_expect_confirmed(&batch, session, what);
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

void kit_publish_plain(struct kit_session *session, size_t count, const char *what)
{
    const struct kit_shape plain = {0};
    publish_confirmed(session, count, &plain, PUBLISH_MS, what);
}

/* ---- lives ---- */

static void open_and_close(struct kit_stage *stage)
{
    for (int life = 0; life < 3; life++) {
        kit_open(stage);
        kit_close(stage);
    }
}

static void free_without_connect(struct kit_stage *stage)
{
    struct kit_session session;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_session_free(&session);
    kit_close(stage);
}

static void connect_again(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (int life = 0; life < 3; life++) {
        kit_publish_plain(&session, 1, "a message after connect()");
        kit_disconnect(&session);
        kit_connect(&session);
    }
    kit_end(stage, &session);
}

/* ---- what it tells ---- */

static void expect_one_line(struct kit_stage *stage, const char *text)
{
    if (text[strcspn(text, "\r\n")] != '\0') {
        kit_fail(stage, "explain() wrote more than one line: %.40s", text);
    }
}

static void telling(struct kit_stage *stage)
{
    static const char odd[] = "a\r\nb\x01${channel}%s%n";
    static const size_t rooms[] = {1, 16, 1024};
    const struct kit_shape shapes[] = {{.bare = false}, {.bare = true}, {.key = {odd, sizeof odd - 1}}};
    bool tells = false;
    char text[1024];
    (void)kit_library(stage, text, sizeof text); /* may come before open() */
    kit_open(stage);
    for (size_t at = 0; at < sizeof shapes / sizeof shapes[0] * 3; at++) {
        struct kit_messages messages;
        kit_make(stage, &messages, 1, &shapes[at / 3]);
        if (kit_explain(stage, messages.pointers[0], text, rooms[at % 3])) {
            expect_one_line(stage, text);
            tells = true;
        }
        tells = kit_library(stage, text, rooms[at % 3]) || tells;
        kit_messages_finish(&messages);
    }
    if (!tells) {
        kit_note(stage, "it has neither");
    }
    kit_close(stage);
}

/* ---- batches ---- */

static void empty_batch(struct kit_stage *stage)
{
    const struct kit_shape plain = {0};
    struct kit_session session;
    kit_begin(stage, &session);
    publish_confirmed(&session, 0, &plain, PUBLISH_MS, "an empty batch");
    kit_publish_plain(&session, 1, "a message after an empty batch");
    kit_end(stage, &session);
}

static void one_message(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 1, "one message");
    kit_end(stage, &session);
}

static void hundred_messages(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (int round = 0; round < 3; round++) {
        kit_publish_plain(&session, 100, "a batch of 100");
    }
    kit_end(stage, &session);
}

static void ten_thousand_messages(struct kit_stage *stage)
{
    const struct kit_shape plain = {0};
    struct kit_session session;
    kit_begin(stage, &session);
    publish_confirmed(&session, 10000, &plain, BULK_MS, "a batch of 10,000");
    kit_end(stage, &session);
}

/* ---- messages ---- */

static void bare_message(struct kit_stage *stage)
{
    const struct kit_shape bare = {.bare = true};
    struct kit_session session;
    kit_begin(stage, &session);
    publish_confirmed(&session, 10, &bare, PUBLISH_MS, "a message without key, ids and headers");
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
        kit_expect_confirmed(&batch, &session, "a message whose texts end at unreadable memory");
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
    }
    kit_end(stage, &session);
}

static void odd_payloads(struct kit_stage *stage)
{
    const struct kit_shape empty = {.payload = {"", 0}};
    const struct kit_shape zeros = {.payload = {"\0a\0\xff\0", 6}};
    struct kit_session session;
    kit_begin(stage, &session);
    publish_confirmed(&session, 3, &empty, PUBLISH_MS, "an empty payload");
    publish_confirmed(&session, 3, &zeros, PUBLISH_MS, "a payload with NUL bytes");
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
    publish_confirmed(&session, 3, &longs, PUBLISH_MS, "a key and a header of 255 bytes");
    kit_end(stage, &session);
}

/* Whether such texts can be carried is the broker's business; that they do no harm is ours. */
static void hostile_texts(struct kit_stage *stage)
{
    static const char text[] = "a\r\nkit-injected: yes\r\n\r\n\x01${channel}%s%n\xc3\xbf'\"; --";
    const struct outbox_header headers[] = {
        {{"kit-hostile", 11}, {text, sizeof text - 1}, OUTBOX_VALUE_STRING}};
    const struct kit_shape hostile = {.key = {text, sizeof text - 1}, .headers = headers, .header_count = 1};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_make(stage, &messages, 3, &hostile);
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    if (batch.state == OUTBOX_SESSION_LOST) {
        kit_fail(
            stage,
            "line breaks and control characters in key and headers cost the session: refuse such a message "
            "before the wire (%s)",
            session.error.text);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_publish_plain(&session, 1, "a message after hostile ones");
    kit_end(stage, &session);
}

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

/* ---- time ---- */

static void passed_deadline(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_make(stage, &messages, 50, NULL);
    kit_publish(&batch, &session, &messages, -1);
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_disconnect(&session);
    kit_connect(&session);
    kit_publish_plain(&session, 1, "a message after a batch without time");
    kit_end(stage, &session);
}

static void nothing_kept(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (int round = 0; round < 3; round++) {
        struct kit_messages messages;
        struct kit_batch batch;
        kit_make(stage, &messages, 20, NULL);
        kit_publish(&batch, &session, &messages, PUBLISH_MS);
        /* Whoever is late has this long to show itself; there is no event to wait for. */
        (void)usleep(300000);
        (void)kit_check(&session, 1000);
        kit_batch_finish(&batch); /* the messages stay, unreadable, to the end of the process */
    }
    kit_end(stage, &session);
    (void)usleep(300000);
}

static void interrupted(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    struct kit_interrupt interrupt;
    if (!kit_has_interrupt(stage)) {
        return;
    }
    kit_begin(stage, &session);
    kit_make(stage, &messages, 10000, NULL);
    kit_interrupt_begin(&interrupt, &session, 3);
    kit_publish(&batch, &session, &messages, BULK_MS);
    kit_interrupt_end(&interrupt);
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_disconnect(&session);
    kit_connect(&session);
    kit_publish_plain(&session, 1, "a message after interrupt() and a new connect()");
    kit_end(stage, &session);
}

static void idle_check(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (int round = 0; round < 5; round++) {
        if (kit_check(&session, 1000) != OUTBOX_SESSION_OK) {
            kit_fail(stage, "check() of a session that works did not say OK: %s", session.error.text);
        }
        kit_publish_plain(&session, 2, "messages after check()");
    }
    kit_end(stage, &session);
}

/* ---- two workers ---- */

static void *worker(void *object)
{
    struct kit_session *session = object;
    struct kit_stage *stage = session->stage;
    kit_session_new(session, stage);
    kit_connect(session);
    for (int round = 0; round < 5; round++) {
        kit_publish_plain(session, 50, "two sessions at once");
    }
    kit_disconnect(session);
    kit_session_free(session);
    return NULL;
}

static void two_sessions_publish(struct kit_stage *stage)
{
    pthread_t threads[2];
    struct kit_session sessions[2];
    kit_open(stage);
    for (int at = 0; at < 2; at++) {
        sessions[at] = (struct kit_session){.stage = stage};
        if (pthread_create(&threads[at], NULL, worker, &sessions[at]) != 0) {
            kit_fail(stage, "the kit cannot start a thread");
        }
    }
    for (int at = 0; at < 2; at++) {
        (void)pthread_join(threads[at], NULL);
    }
    kit_close(stage);
}

const struct kit_test kit_contract_tests[] = {
    {"open() and close() may be repeated", open_and_close, 10000, false, false},
    {"a session that never connected can be freed", free_without_connect, 10000, false, false},
    {"connect() and disconnect() may be repeated on one session", connect_again, 30000, false, false},
    {"explain() and library() keep to the bytes that they are given", telling, 20000, false, false},
    {"an empty batch is OK", empty_batch, 20000, false, false},
    {"a message is confirmed", one_message, 20000, false, false},
    {"every message of a batch is settled once, by publish() itself", hundred_messages, 40000, false, false},
    {"a batch of 10,000 messages is confirmed", ten_thousand_messages, 90000, false, false},
    {"a message with nothing but what all messages have is confirmed", bare_message, 20000, false, false},
    {"no text is read beyond its end", guarded_message, 40000, false, false},
    {"empty payloads and NUL bytes are confirmed", odd_payloads, 20000, false, false},
    {"a key and a header of 255 bytes are confirmed", long_texts, 20000, false, false},
    {"line breaks and control characters cost neither process nor session", hostile_texts, 30000, false,
     false},
    {"a payload of 16 MiB is confirmed or rejected", large_payload, 90000, false, false},
    {"a deadline that has passed is kept", passed_deadline, 30000, false, false},
    {"nothing of a batch is used after publish() has returned", nothing_kept, 30000, false, false},
    {"interrupt() ends publish() within 1 s, and connect() mends the session", interrupted, 90000, false,
     false},
    {"check() of an idle session is OK", idle_check, 30000, false, false},
    {"two sessions publish at once", two_sessions_publish, 60000, false, false},
    {NULL, NULL, 0, false, false},
};
