/* kit_fault - what a backend makes of a network that fails between it and its broker. */
#include <stdio.h>
#include <string.h>

#include "kit_tests.h"

enum { PUBLISH_MS = 10000, FAULT_MS = 1500 };

static void make(struct kit_stage *stage, struct kit_messages *messages, size_t count)
{
    const struct kit_shape plain = {0};
    if (!kit_messages_make(messages, count, &plain)) {
        kit_fail(stage, "the kit is out of memory");
    }
}

/* Under `fault`, nothing may be called done or impossible. */
static void expect_no_verdict(struct kit_session *session, size_t count, const char *fault)
{
    struct kit_messages messages;
    struct kit_batch batch;
    make(session->stage, &messages, count);
    kit_publish(&batch, session, &messages, FAULT_MS);
    if (kit_count(&batch, OUTBOX_CONFIRMED) > 0) {
        kit_fail(session->stage,
                 "%zu of %zu messages were CONFIRMED while %s: a message is confirmed by the broker's answer "
                 "alone",
                 kit_count(&batch, OUTBOX_CONFIRMED), count, fault);
    }
    if (kit_count(&batch, OUTBOX_REJECTED) > 0) {
        kit_fail(session->stage,
                 "%zu of %zu messages were REJECTED while %s: an outage is no message's fault",
                 kit_count(&batch, OUTBOX_REJECTED), count, fault);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

/* The network is well again: the same session must be, after disconnect() and connect(). */
static void expect_recovery(struct kit_session *session, const char *after)
{
    kit_proxy_set(session->stage->proxy, KIT_PASS);
    kit_disconnect(session);
    kit_connect(session);
    kit_publish_plain(session, 20, after);
}

static void through_the_proxy(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 200, "a batch through the kit's proxy");
    if (kit_proxy_bytes(stage->proxy) == 0) {
        kit_fail(stage,
                 "not a byte went through the kit's proxy: option '%s' is not what the backend connects to",
                 stage->proxy_option);
    }
    kit_end(stage, &session);
}

static void refused(struct kit_stage *stage)
{
    struct kit_session session;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, KIT_REFUSE);
    for (int round = 0; round < 3; round++) {
        if (kit_try_connect(&session, FAULT_MS) == 0) {
            expect_no_verdict(&session, 20, "connections were refused");
            kit_disconnect(&session);
        }
    }
    expect_recovery(&session, "messages after refused connections");
    kit_end(stage, &session);
}

static void silent_at_connect(struct kit_stage *stage)
{
    struct kit_session session;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, KIT_SILENCE);
    if (kit_try_connect(&session, FAULT_MS) == 0) {
        expect_no_verdict(&session, 20, "nothing came from the broker");
    }
    expect_recovery(&session, "messages after a silent connect()");
    kit_end(stage, &session);
}

static void fault_while_publishing(struct kit_stage *stage, enum kit_fault fault, const char *what,
                                   const char *after)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 20, "messages before the fault");
    kit_proxy_set(stage->proxy, fault);
    expect_no_verdict(&session, 100, what);
    expect_recovery(&session, after);
    kit_end(stage, &session);
}

static void silent_while_publishing(struct kit_stage *stage)
{
    fault_while_publishing(stage, KIT_SILENCE, "nothing went through to the broker",
                           "messages after a silence");
}

static void deaf(struct kit_stage *stage)
{
    fault_while_publishing(stage, KIT_DEAF, "no answer of the broker arrived", "messages after lost answers");
}

static void interrupt_in_silence(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    struct kit_interrupt interrupt;
    if (!kit_has_interrupt(stage)) {
        return;
    }
    kit_begin(stage, &session);
    kit_proxy_set(stage->proxy, KIT_SILENCE);
    make(stage, &messages, 100);
    kit_interrupt_begin(&interrupt, &session, 300);
    kit_publish(&batch, &session, &messages, 20000);
    kit_interrupt_end(&interrupt);
    if (batch.state == OUTBOX_SESSION_OK) {
        kit_fail(stage, "an interrupted publish() said OK: the session is LOST");
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    expect_recovery(&session, "messages after interrupt() in silence");
    kit_end(stage, &session);
}

static void reset(struct kit_stage *stage)
{
    fault_while_publishing(stage, KIT_RESET, "connections were reset before any answer",
                           "messages after a reset connection");
}

/* What was answered before the end may be confirmed; nobody else can tell which. */
static void closed(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (int round = 0; round < 5; round++) {
        struct kit_messages messages;
        struct kit_batch batch;
        make(stage, &messages, 500);
        kit_proxy_set(stage->proxy, KIT_CLOSE);
        kit_publish(&batch, &session, &messages, PUBLISH_MS);
        if (kit_count(&batch, OUTBOX_REJECTED) > 0) {
            kit_fail(stage,
                     "messages were REJECTED because the connection ended: that is no message's fault");
        }
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
        expect_recovery(&session, "messages after a closed connection");
    }
    kit_end(stage, &session);
}

static void slow(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_proxy_set(stage->proxy, KIT_SLOW);
    make(stage, &messages, 20);
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    kit_expect_confirmed(&batch, &session, "messages over a slow network");
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

const struct kit_test kit_fault_tests[] = {
    {"all is as before through a proxy", through_the_proxy, 30000},
    {"refused connections confirm nothing", refused, 60000},
    {"a silent peer does not hold connect() beyond its deadline", silent_at_connect, 40000},
    {"a silent network does not hold publish() beyond its deadline, and confirms nothing",
     silent_while_publishing, 40000},
    {"answers that do not arrive confirm nothing", deaf, 40000},
    {"interrupt() ends a publish() that waits, within 1 s", interrupt_in_silence, 40000},
    {"a connection that is reset before the answer confirms nothing", reset, 90000},
    {"a connection that ends in the middle rejects nothing, and connect() mends it", closed, 90000},
    {"a slow network is waited for", slow, 40000},
    {NULL, NULL, 0},
};
