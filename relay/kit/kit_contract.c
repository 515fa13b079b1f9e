/* kit_contract - what outbox_backend.h asks of every backend, against a destination that works. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "kit/kit_tests.h"
#include "plugin/backend.h"

enum { PUBLISH_MS = 10000, BULK_MS = 60000, BULK = 10000, LEAST_BULK = 500, BUSY_MS = 200, BUSY_ROUNDS = 50 };

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

/* After BUSY, what was not confirmed is for the next time, when check() says OK. */
static void sit_out(struct kit_session *session, const struct kit_batch *batch, const char *what)
{
    int64_t wait_ms = session->error.retry_after_ms;
    for (size_t at = 0; at < batch->lent.count; at++) {
        enum outbox_verdict verdict = batch->answers[at].verdict;
        if (batch->answers[at].settled && verdict != OUTBOX_CONFIRMED && verdict != OUTBOX_UNSETTLED) {
            kit_fail(session->stage, "%s: message %zu is neither confirmed nor left for later: %s", what,
                     at + 1, batch->answers[at].reason);
        }
    }
    (void)usleep((useconds_t)(wait_ms > 0 && wait_ms < BUSY_MS ? wait_ms : BUSY_MS) * 1000);
    for (int round = 0; round < BUSY_ROUNDS && kit_check(session, 1000) == OUTBOX_SESSION_BUSY; round++) {
        (void)usleep(BUSY_MS * 1000);
    }
}

/* What is left of `count`: 0, unless the session was busy. */
static size_t publish_some(struct kit_session *session, size_t count, const struct kit_shape *shape,
                           int64_t wait_ms, const char *what)
{
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, count, shape);
    kit_publish(&batch, session, &messages, wait_ms);
    size_t confirmed = kit_count(&batch, OUTBOX_CONFIRMED);
    bool busy = batch.state == OUTBOX_SESSION_BUSY;
    if (busy) {
        sit_out(session, &batch, what);
    } else {
        kit_expect_confirmed(&batch, session, what);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    return busy ? count - confirmed : 0;
}

void kit_publish_confirmed(struct kit_session *session, size_t count, const struct kit_shape *shape,
                           int64_t wait_ms, const char *what)
{
    int64_t ends_ms = clock_now_ms() + wait_ms;
    size_t left = publish_some(session, count, shape, wait_ms, what);
    while (left > 0) {
        if (clock_now_ms() >= ends_ms) {
            kit_fail(session->stage, "%s: the session was busy for %lld s, and %zu of %zu messages are left",
                     what, (long long)wait_ms / 1000, left, count);
        }
        left = publish_some(session, left, shape, ends_ms - clock_now_ms(), what);
    }
}

void kit_publish_plain(struct kit_session *session, size_t count, const char *what)
{
    const struct kit_shape plain = {0};
    kit_publish_confirmed(session, count, &plain, PUBLISH_MS, what);
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
    kit_publish_confirmed(&session, 0, &plain, PUBLISH_MS, "an empty batch");
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

/* Fewer where the destination is far: the kit asks for no speed. */
static void ten_thousand_messages(struct kit_stage *stage)
{
    const struct kit_shape plain = {0};
    struct kit_session session;
    char text[100];
    kit_begin(stage, &session);
    int64_t began_ms = clock_now_ms();
    kit_publish_confirmed(&session, 100, &plain, BULK_MS, "a batch of 100");
    int64_t took_ms = clock_now_ms() - began_ms;
    int64_t count = took_ms > 0 ? (int64_t)BULK_MS * 100 / 3 / took_ms : BULK;
    count = count > BULK ? BULK : count < LEAST_BULK ? LEAST_BULK : count;
    kit_publish_confirmed(&session, (size_t)count, &plain, BULK_MS, "a batch of 10,000");
    if (count < BULK) {
        (void)snprintf(text, sizeof text, "%lld messages in place of 10,000: 100 took %lld ms",
                       (long long)count, (long long)took_ms);
        kit_note(stage, text);
    }
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

/* ---- what the relay may do ---- */

/* A reload looks whether the new settings are right. */
static void second_backend(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    void *first = stage->backend;
    kit_open(stage);
    kit_close(stage);
    stage->backend = first;
    kit_publish_plain(&session, 10, "messages after a second open() and its close()");
    kit_disconnect(&session);
    kit_connect(&session);
    kit_publish_plain(&session, 10, "messages of a session that connected after that");
    kit_end(stage, &session);
}

enum { MANY_SESSIONS = 64 }; /* as many as there may be workers */

static void *connect_one(void *object)
{
    kit_connect(object);
    return NULL;
}

static void *publish_one(void *object)
{
    kit_publish_plain(object, 5, "messages of one of 64 sessions");
    kit_disconnect(object);
    return NULL;
}

/* Four at a time. */
static void in_threads(struct kit_stage *stage, struct kit_session *sessions, void *(*work)(void *))
{
    enum { AT_ONCE = 4 };
    pthread_t threads[AT_ONCE];
    for (size_t from = 0; from < MANY_SESSIONS; from += AT_ONCE) {
        for (size_t at = 0; at < AT_ONCE; at++) {
            if (pthread_create(&threads[at], NULL, work, &sessions[from + at]) != 0) {
                kit_fail(stage, "the kit cannot start a thread");
            }
        }
        for (size_t at = 0; at < AT_ONCE; at++) {
            (void)pthread_join(threads[at], NULL);
        }
    }
}

static void many_sessions(struct kit_stage *stage)
{
    static struct kit_session sessions[MANY_SESSIONS];
    kit_open(stage);
    for (size_t at = 0; at < MANY_SESSIONS; at++) {
        kit_session_new(&sessions[at], stage);
    }
    in_threads(stage, sessions, connect_one);
    in_threads(stage, sessions, publish_one);
    for (size_t at = 0; at < MANY_SESSIONS; at++) {
        kit_session_free(&sessions[at]);
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
    {"a deadline that has passed is kept", passed_deadline, 30000, false, false},
    {"nothing of a batch is used after publish() has returned", nothing_kept, 30000, false, false},
    {"interrupt() ends publish() within 1 s, and connect() mends the session", interrupted, 90000, false,
     false},
    {"check() of an idle session is OK", idle_check, 30000, false, false},
    {"two sessions publish at once", two_sessions_publish, 60000, false, false},
    {"64 sessions work, each in another thread than made it", many_sessions, 60000, false, false},
    {"a second open() and its close() change nothing", second_backend, 30000, false, false},
    {NULL, NULL, 0, false, false},
};
