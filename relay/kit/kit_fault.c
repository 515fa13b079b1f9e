/* kit_fault - what a backend makes of a network that fails between it and its broker. */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kit/kit_tests.h"

enum { PUBLISH_MS = 10000, FAULT_MS = 1500, BIG_BYTES = 64 << 10, BIG_COUNT = 20, FAILURES = 12, SLACK = 3 };

/* Of the connections of this process, one that leads neither to the proxy nor from it; its port, or 0. */
static unsigned way_past(const struct kit_stage *stage)
{
    DIR *listing = opendir("/proc/self/fd");
    unsigned past = 0;
    for (const struct dirent *entry = NULL; listing && !past && (entry = readdir(listing)) != NULL;) {
        int fd = (int)strtol(entry->d_name, NULL, 10);
        struct sockaddr_storage peer = {0};
        socklen_t len = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &len) != 0 ||
            (peer.ss_family != AF_INET && peer.ss_family != AF_INET6) || kit_proxy_owns(stage->proxy, fd)) {
            continue;
        }
        unsigned port = ntohs(peer.ss_family == AF_INET ? ((struct sockaddr_in *)&peer)->sin_port
                                                        : ((struct sockaddr_in6 *)&peer)->sin6_port);
        past = port != kit_proxy_port(stage->proxy) ? port : 0;
    }
    if (listing) {
        (void)closedir(listing);
    }
    return past;
}

/* Clients that learn from their broker where it is (Kafka) go there, and then no fault of the proxy is
 * theirs. */
static void expect_no_way_past(struct kit_stage *stage)
{
    char text[KIT_TEXT_BYTES];
    unsigned port = way_past(stage);
    if (port != 0) {
        (void)snprintf(
            text, sizeof text,
            "the data went past the proxy: the client has a connection to port %u that it did not get "
            "from option '%s'. If the broker told it that address, have it tell the proxy's, and write "
            "--proxy %s=LISTENPORT",
            port, stage->proxy_option, stage->proxy_option);
        kit_skip_past(stage, text);
    }
}

/* Where the broker's name had to go, its certificate may no longer do: that is no fault of the backend. */
static void begin_under_another_name(struct kit_stage *stage, struct kit_session *session)
{
    struct kit_messages messages = {0};
    struct kit_batch batch = {0};
    kit_open(stage);
    kit_session_new(session, stage);
    bool in = kit_try_connect(session, PUBLISH_MS) == 0;
    const char *why = session->error.text;
    if (in) {
        kit_make(stage, &messages, 1, NULL);
        kit_publish(&batch, session, &messages, PUBLISH_MS);
        in = kit_count(&batch, OUTBOX_CONFIRMED) == 1;
        why = batch.answers[0].settled ? batch.answers[0].reason : why;
    }
    if (!in) {
        kit_skip_renamed(stage, why);
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
}

static void through_the_proxy(struct kit_stage *stage)
{
    const struct kit_shape big = {.payload = {NULL, BIG_BYTES}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    if (stage->renamed[0]) {
        begin_under_another_name(stage, &session);
    } else {
        kit_begin(stage, &session);
    }
    kit_publish_plain(&session, 200, "a batch through the kit's proxy");
    expect_no_way_past(stage);
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

static void fault_while_publishing(struct kit_stage *stage, enum kit_fault fault, const char *what,
                                   const char *after)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 20, "messages before the fault");
    kit_proxy_set(stage->proxy, fault);
    (void)kit_expect_no_verdict(&session, 100, what);
    kit_expect_recovery(&session, after);
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
    kit_expect_recovery(&session, "messages after a write that could not go on");
    kit_end(stage, &session);
}

/* Late answers to the last batch must not confirm the next. */
static void expect_no_stale_answers(struct kit_session *session)
{
    kit_proxy_set(session->stage->proxy, KIT_PASS);
    kit_disconnect(session);
    kit_connect(session);
    kit_proxy_set(session->stage->proxy, KIT_MUTE);
    (void)kit_expect_no_verdict(session, 100, "nothing of the batch reached the broker");
}

/* Whoever says that his session lives on is given the next batch on it, and the answers to the last. */
static void expect_no_late_answers(struct kit_session *session)
{
    kit_proxy_set(session->stage->proxy, KIT_MUTE);
    (void)kit_check(session, 500);
    (void)kit_expect_no_verdict(session, 100,
                                "nothing of the batch reached the broker, and answers to the batch before it "
                                "came late (say LOST where "
                                "an answer is missing, or know to which message each belongs)");
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
    if (kit_expect_no_verdict(&session, 100, "no answer of the broker arrived") != OUTBOX_SESSION_LOST) {
        expect_no_late_answers(&session);
    }
    expect_no_stale_answers(&session);
    kit_expect_recovery(&session, "messages after lost answers");
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

/* What answers check() answers no message. */
static void asked_before(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    for (int round = 0; round < 3; round++) {
        (void)kit_check(&session, 1000);
        (void)usleep(50000);
    }
    kit_proxy_set(stage->proxy, KIT_MUTE);
    (void)kit_expect_no_verdict(&session, 50,
                                "nothing of the batch reached the broker, after check() had asked it");
    kit_expect_recovery(&session, "messages after a batch that went nowhere");
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
    kit_expect_recovery(&session, "messages after interrupt() in silence");
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
        kit_expect_recovery(&session, "messages after a closed connection");
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

/* Each answer comes in time for a timeout of its own, and all of them do not. */
static void drip(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 2, "messages before the fault");
    for (int round = 0; round < 2; round++) {
        struct kit_messages messages;
        struct kit_batch batch;
        kit_make(stage, &messages, 100, NULL);
        kit_proxy_set(stage->proxy, KIT_DRIP);
        kit_publish(&batch, &session, &messages, FAULT_MS);
        if (kit_count(&batch, OUTBOX_REJECTED) > 0) {
            kit_fail(stage, "messages were REJECTED because answers came slowly: that is no message's fault");
        }
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
        kit_expect_recovery(&session, "messages after answers that came a byte at a time");
    }
    kit_end(stage, &session);
}

const struct kit_test kit_fault_tests[] = {
    {"all is as before through a proxy, and payloads go through whole", through_the_proxy, 40000, true,
     false},
    {"a silent network does not hold publish() beyond its deadline, and confirms nothing",
     silent_while_publishing, 40000, true, false},
    {"nor does it while publish() writes", silent_while_writing, 40000, true, false},
    {"answers that do not arrive confirm nothing, nor do they when they arrive late", deaf, 40000, true,
     false},
    {"what answers check() confirms nothing", asked_before, 40000, true, false},
    {"answers that are noise confirm nothing", garbage, 40000, true, false},
    {"interrupt() ends a publish() that waits, within 1 s", interrupt_in_silence, 40000, true, false},
    {"a connection that is reset before the answer confirms nothing", reset, 90000, true, false},
    {"a connection that ends after the first byte of an answer confirms nothing", cut, 90000, true, false},
    {"a connection that ends in the middle rejects nothing, and connect() mends it", closed, 90000, true,
     false},
    {"a slow network is waited for", slow, 40000, true, false},
    {"answers that come a byte at a time do not hold publish() beyond its deadline", drip, 60000, true,
     false},
    {NULL, NULL, 0, false, false},
};
