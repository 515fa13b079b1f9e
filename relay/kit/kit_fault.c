/* kit_fault - what a backend makes of a network that fails between it and its broker. */
#include <stdio.h>
#include <string.h>

#include "kit/kit_tests.h"

enum { PUBLISH_MS = 10000, FAULT_MS = 1500, BIG_BYTES = 64 << 10, BIG_COUNT = 20, FAILURES = 12, SLACK = 3 };

/* Under `fault`, nothing may be called done or impossible. */
static void expect_no_verdict(struct kit_session *session, size_t count, const char *fault)
{
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(session->stage, &messages, count, NULL);
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
    const struct kit_shape big = {.payload = {NULL, BIG_BYTES}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 200, "a batch through the kit's proxy");
    if (kit_proxy_bytes(stage->proxy) == 0) {
        kit_fail(stage,
                 "not a byte went through the kit's proxy: option '%s' is not what the backend connects to",
                 stage->proxy_option);
    }
    kit_make(stage, &messages, BIG_COUNT, &big);
    uint64_t before = kit_proxy_bytes(stage->proxy);
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    uint64_t carried = kit_proxy_bytes(stage->proxy) - before;
    uint64_t confirmed = kit_count(&batch, OUTBOX_CONFIRMED) * BIG_BYTES;
    if (carried * 2 <
        confirmed) { /* a receiver may answer before it has read all, so this is a rough measure */
        kit_fail(stage,
                 "payloads of %llu bytes were CONFIRMED, and %llu bytes went to the broker: they are cut off",
                 (unsigned long long)confirmed, (unsigned long long)carried);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

static void refused(struct kit_stage *stage)
{
    struct kit_session session;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, KIT_REFUSE);
    int before = 0;
    for (int round = 0; round < FAILURES; round++) {
        if (round == SLACK) {
            before = kit_count_descriptors();
        }
        if (kit_try_connect(&session, FAULT_MS) == 0) {
            expect_no_verdict(&session, 20, "connections were refused");
            kit_disconnect(&session);
        }
    }
    if (kit_count_descriptors() > before + SLACK) {
        kit_fail(stage, "each connect() that fails leaks a file descriptor");
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

/* More than any buffer in between takes, so that the backend must wait while it writes. */
static void silent_while_writing(struct kit_stage *stage)
{
    const struct kit_shape huge = {.payload = {NULL, (size_t)1 << 20}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_proxy_set(stage->proxy, KIT_SILENCE);
    kit_make(stage, &messages, 32, &huge);
    kit_publish(&batch, &session, &messages, FAULT_MS);
    if (kit_count(&batch, OUTBOX_CONFIRMED) > 0) {
        kit_fail(stage, "messages were CONFIRMED that were not even written");
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    expect_recovery(&session, "messages after a write that could not go on");
    kit_end(stage, &session);
}

/* Late answers to the last batch must not confirm the next. */
static void expect_no_stale_answers(struct kit_session *session)
{
    kit_proxy_set(session->stage->proxy, KIT_PASS);
    kit_disconnect(session);
    kit_connect(session);
    kit_proxy_set(session->stage->proxy, KIT_MUTE);
    expect_no_verdict(session, 100, "nothing of the batch reached the broker");
}

static void deaf(struct kit_stage *stage)
{
    const struct kit_shape big = {.payload = {NULL, BIG_BYTES}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 20, "messages before the fault");
    kit_proxy_set(stage->proxy, KIT_DEAF);
    expect_no_verdict(&session, 100, "no answer of the broker arrived");
    expect_no_stale_answers(&session);
    expect_recovery(&session, "messages after lost answers");
    kit_make(stage, &messages, 1, &big);
    kit_proxy_set(stage->proxy, KIT_DEAF);
    uint64_t before = kit_proxy_bytes(stage->proxy);
    kit_publish(&batch, &session, &messages, FAULT_MS);
    if (kit_count(&batch, OUTBOX_UNSETTLED) > 0 && kit_proxy_bytes(stage->proxy) - before >= BIG_BYTES) {
        kit_fail(stage, "a message was settled as UNSETTLED, which means not sent, although all of it went "
                        "to the broker");
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

static void garbage(struct kit_stage *stage)
{
    fault_while_publishing(stage, KIT_GARBAGE, "the broker's answers arrived as noise",
                           "messages after noise");
}

static void cut(struct kit_stage *stage)
{
    fault_while_publishing(stage, KIT_CUT, "connections ended after the first byte of an answer",
                           "messages after a cut connection");
}

static void check_in_silence(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_proxy_set(stage->proxy, KIT_SILENCE);
    for (int round = 0; round < 3; round++) {
        (void)kit_check(&session, 500); /* what it says is its own affair; when, is not */
    }
    expect_recovery(&session, "messages after check() in silence");
    kit_end(stage, &session);
}

static void interrupt_connect(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_interrupt interrupt;
    if (!kit_has_interrupt(stage)) {
        return;
    }
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, KIT_SILENCE);
    kit_interrupt_begin(&interrupt, &session, 300);
    (void)kit_try_connect(&session, 20000);
    kit_interrupt_end(&interrupt);
    expect_recovery(&session, "messages after an interrupted connect()");
    kit_end(stage, &session);
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
    kit_make(stage, &messages, 100, NULL);
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
        kit_make(stage, &messages, 500, NULL);
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
    kit_make(stage, &messages, 20, NULL);
    kit_publish(&batch, &session, &messages, PUBLISH_MS);
    kit_expect_confirmed(&batch, &session, "messages over a slow network");
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_end(stage, &session);
}

const struct kit_test kit_fault_tests[] = {
    {"all is as before through a proxy, and payloads go through whole", through_the_proxy, 40000},
    {"refused connections confirm nothing, and leak nothing", refused, 60000},
    {"a silent peer does not hold connect() beyond its deadline", silent_at_connect, 40000},
    {"a silent network does not hold publish() beyond its deadline, and confirms nothing",
     silent_while_publishing, 40000},
    {"nor does it while publish() writes", silent_while_writing, 40000},
    {"a silent network does not hold check() beyond its deadline", check_in_silence, 30000},
    {"answers that do not arrive confirm nothing, nor do they when they arrive late", deaf, 40000},
    {"answers that are noise confirm nothing", garbage, 40000},
    {"interrupt() ends a publish() that waits, within 1 s", interrupt_in_silence, 40000},
    {"interrupt() ends a connect() that waits, within 1 s", interrupt_connect, 40000},
    {"a connection that is reset before the answer confirms nothing", reset, 90000},
    {"a connection that ends after the first byte of an answer confirms nothing", cut, 90000},
    {"a connection that ends in the middle rejects nothing, and connect() mends it", closed, 90000},
    {"a slow network is waited for", slow, 40000},
    {NULL, NULL, 0},
};
