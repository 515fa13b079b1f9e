/* kit_outage - what a backend makes of a broker that is not there. */
#include <fcntl.h>
#include <unistd.h>

#include "kit/kit_tests.h"
#include "plugin/backend.h"

enum {
    FAULT_MS = 1500,
    SHORT_MS = 300,
    FAILURES = 12,
    SLACK = 3,
    LIVES = 8,
    ROUNDS = 8, /* a leak grows with every one; what a library's threads do meanwhile does not */
    LEAK_BYTES = 8,
    CHECKS = 20,
    CHECK_MS = 200,
    STRANGERS = 8
};

/* Under `fault`, nothing may be called done or impossible. */
enum outbox_session_state kit_expect_no_verdict(struct kit_session *session, size_t count, const char *fault)
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
    return batch.state;
}

/* The network is well again: the same session must be, after disconnect() and connect(). */
void kit_expect_recovery(struct kit_session *session, const char *after)
{
    kit_proxy_set(session->stage->proxy, KIT_PASS);
    kit_disconnect(session);
    kit_connect(session);
    kit_publish_plain(session, 20, after);
}

static void fail_to_connect(struct kit_session *session)
{
    for (int life = 0; life < LIVES; life++) {
        if (kit_try_connect(session, SHORT_MS) == 0) { /* who asks nothing has no answer to miss */
            kit_disconnect(session);
        }
    }
}

static void expect_nothing_kept(struct kit_session *session, enum kit_fault fault)
{
    struct kit_proxy *proxy = session->stage->proxy;
    int64_t least = INT64_MAX;
    const int64_t most = (int64_t)LIVES * LEAK_BYTES;
    kit_proxy_set(proxy, fault);
    fail_to_connect(session);
    for (int round = 0; round < ROUNDS && least >= most; round++) {
        (void)kit_proxy_descriptors(proxy); /* waits until the proxy's memory is given back */
        int64_t before = kit_count_bytes();
        fail_to_connect(session);
        (void)kit_proxy_descriptors(proxy);
        int64_t grown = kit_count_bytes() - before;
        least = grown < least ? grown : least;
    }
    if (least >= most) {
        kit_fail(session->stage, "each connect() that fails leaks %lld bytes of memory",
                 (long long)(least / LIVES));
    }
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
            (void)kit_expect_no_verdict(&session, 20, "connections were refused");
            kit_disconnect(&session);
        }
    }
    if (kit_count_descriptors() > before + SLACK) {
        kit_fail(stage, "each connect() that fails leaks a file descriptor");
    }
    expect_nothing_kept(&session, KIT_REFUSE);
    expect_nothing_kept(&session, KIT_RESET);
    kit_expect_recovery(&session, "messages after refused connections");
    kit_end(stage, &session);
}

/* Whoever connects learns nothing, and must give up in time. */
static void connect_under(struct kit_stage *stage, enum kit_fault fault, const char *what, const char *after)
{
    struct kit_session session;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, fault);
    if (kit_try_connect(&session, FAULT_MS) == 0) {
        (void)kit_expect_no_verdict(&session, 20, what);
    }
    kit_expect_recovery(&session, after);
    kit_end(stage, &session);
}

static void silent_at_connect(struct kit_stage *stage)
{
    connect_under(stage, KIT_SILENCE, "nothing came from the broker", "messages after a silent connect()");
}

static void hole(struct kit_stage *stage)
{
    connect_under(stage, KIT_HOLE, "nobody answered who connected",
                  "messages after connecting into a black hole");
}

/* Each byte comes in time for a timeout of its own. */
static void drip(struct kit_stage *stage)
{
    struct kit_session session;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, KIT_DRIP);
    if (kit_try_connect(&session, FAULT_MS) == 0) {
        kit_disconnect(&session);
    }
    kit_expect_recovery(&session, "messages after a connect() that was answered a byte at a time");
    kit_proxy_set(stage->proxy, KIT_DRIP);
    for (int round = 0; round < 3; round++) {
        (void)kit_check(&session, 500);
    }
    kit_expect_recovery(&session, "messages after a check() that was answered a byte at a time");
    kit_end(stage, &session);
}

static void check_in_silence(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_proxy_set(stage->proxy, KIT_SILENCE);
    for (int round = 0; round < 3; round++) {
        (void)kit_check(&session, 500); /* what it says is its own affair; when, is not */
    }
    kit_expect_recovery(&session, "messages after check() in silence");
    kit_end(stage, &session);
}

/* A descriptor that was closed belongs to whoever opens the next: the database's connection, say. */
static void expect_no_stranger_closed(struct kit_session *session)
{
    int fds[STRANGERS];
    for (size_t at = 0; at < STRANGERS; at++) {
        fds[at] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    kit_disconnect(session);
    for (size_t at = 0; at < STRANGERS; at++) {
        if (fds[at] >= 0 && fcntl(fds[at], F_GETFD) < 0) {
            kit_fail(session->stage,
                     "disconnect() closed a descriptor that was not the session's any more: it had "
                     "been closed before, and was somebody else's by then");
        }
        (void)close(fds[at]);
    }
}

/* Every message would be tried, and counted, for as long as the broker is away. */
static void gone(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 20, "messages before the fault");
    kit_proxy_set(stage->proxy, KIT_REFUSE);
    struct kit_messages messages;
    struct kit_batch batch;
    kit_make(stage, &messages, 50, NULL);
    kit_publish(&batch, &session, &messages, FAULT_MS);
    size_t blamed =
        kit_count(&batch, OUTBOX_HOLD) + kit_count(&batch, OUTBOX_RETRY) + kit_count(&batch, OUTBOX_REJECTED);
    if (kit_count(&batch, OUTBOX_CONFIRMED) > 0) {
        kit_fail(stage, "%zu messages were CONFIRMED although no connection was left",
                 kit_count(&batch, OUTBOX_CONFIRMED));
    }
    if (batch.state != OUTBOX_SESSION_LOST) {
        kit_fail(
            stage,
            "the broker was gone, and publish() said that the session is %s, with a verdict for %zu of 50 "
            "messages: a connection that broke is no message's fault; say LOST and leave them",
            batch.state == OUTBOX_SESSION_OK ? "OK" : "BUSY", blamed);
    }
    if (session.error.kind == OUTBOX_ERROR_CONFIG) {
        kit_fail(stage, "the broker was gone, and the error's kind is CONFIG, at which `drain` gives up: say "
                        "UNAVAILABLE");
    }
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    expect_no_stranger_closed(&session);
    kit_expect_recovery(&session, "messages after the broker was gone");
    kit_end(stage, &session);
}

/* ---- what stays behind ---- */

static void lose(struct kit_session *session)
{
    struct kit_stage *stage = session->stage;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_connect(session);
    kit_publish_plain(session, 5, "messages before the fault");
    kit_make(stage, &messages, 50, NULL);
    kit_proxy_set(stage->proxy, KIT_RESET);
    kit_publish(&batch, session, &messages, FAULT_MS);
    kit_batch_finish(&batch);
    kit_messages_finish(&messages);
    kit_proxy_set(stage->proxy, KIT_PASS);
    kit_disconnect(session);
}

static void given_back(struct kit_stage *stage)
{
    struct kit_session session;
    int64_t least = INT64_MAX;
    const int64_t most = (int64_t)LIVES * LEAK_BYTES;
    kit_open(stage);
    kit_session_new(&session, stage);
    for (int life = 0; life < LIVES; life++) {
        lose(&session);
    }
    int descriptors = kit_count_descriptors() - kit_proxy_descriptors(stage->proxy);
    for (int round = 0; round < ROUNDS && least >= most; round++) {
        int64_t before = kit_count_bytes();
        for (int life = 0; life < LIVES; life++) {
            lose(&session);
        }
        int proxys = kit_proxy_descriptors(stage->proxy); /* waits until its memory is given back, too */
        int64_t grown = kit_count_bytes() - before;
        least = grown < least ? grown : least;
        if (kit_count_descriptors() - proxys >= descriptors + LIVES * (round + 1)) {
            kit_fail(stage, "each session that is lost leaks a file descriptor");
        }
    }
    if (least >= most) {
        kit_fail(stage, "each session that is lost leaks %lld bytes of memory", (long long)(least / LIVES));
    }
    kit_end(stage, &session);
}

/* ---- check() ---- */

static void expect_told(struct kit_session *session, enum kit_fault fault, const char *how)
{
    enum outbox_session_state state = OUTBOX_SESSION_OK;
    kit_publish_plain(session, 2, "messages before the fault");
    kit_proxy_set(session->stage->proxy, fault);
    for (int round = 0; round < CHECKS && state == OUTBOX_SESSION_OK; round++) {
        state = kit_check(session, 500);
        (void)usleep(CHECK_MS * 1000);
    }
    if (state == OUTBOX_SESSION_OK) {
        kit_fail(session->stage,
                 "check() said OK %d times after the connection was %s: look at the socket, or leave check() "
                 "out",
                 CHECKS, how);
    }
    kit_expect_recovery(session, "messages after check() had found the connection gone");
}

/* A FIN or RST is there to be read; whoever never looks learns of it with a batch in hand. */
static void check_tells(struct kit_stage *stage)
{
    struct kit_session session;
    if (!BACKEND_HAS(stage->table, check)) {
        kit_note(stage, "check() is not implemented: a lost connection is seen with the next batch only");
        return;
    }
    kit_begin(stage, &session);
    expect_told(&session, KIT_END, "closed by its peer");
    expect_told(&session, KIT_REFUSE, "reset");
    kit_end(stage, &session);
}

/* ---- interrupt() ---- */

static void interrupt_in(struct kit_stage *stage, enum kit_fault fault, const char *after)
{
    struct kit_session session;
    struct kit_interrupt interrupt;
    kit_open(stage);
    kit_session_new(&session, stage);
    kit_proxy_set(stage->proxy, fault);
    kit_interrupt_begin(&interrupt, &session, 300);
    (void)kit_try_connect(&session, 20000);
    kit_interrupt_end(&interrupt);
    kit_expect_recovery(&session, after);
    kit_end(stage, &session);
}

static void interrupt_connect(struct kit_stage *stage)
{
    if (kit_has_interrupt(stage)) {
        interrupt_in(stage, KIT_SILENCE, "messages after an interrupted connect()");
        interrupt_in(stage, KIT_HOLE, "messages after an interrupted connect() into a black hole");
        interrupt_in(stage, KIT_REFUSE, "messages after an interrupted connect() that is refused");
    }
}

static void interrupt_check(struct kit_stage *stage)
{
    struct kit_session session;
    if (!kit_has_interrupt(stage) || !BACKEND_HAS(stage->table, check)) {
        return;
    }
    kit_begin(stage, &session);
    for (int round = 0; round < 3; round++) {
        struct kit_interrupt interrupt;
        kit_proxy_set(stage->proxy, KIT_SILENCE);
        kit_interrupt_begin(&interrupt, &session, 100);
        (void)kit_check(&session, 5000);
        kit_interrupt_end(&interrupt);
        kit_expect_recovery(&session, "messages after an interrupted check()");
    }
    kit_end(stage, &session);
}

const struct kit_test kit_outage_tests[] = {
    {"refused connections confirm nothing, and leak nothing", refused, 180000, true, false},
    {"a broker that is gone costs the session, and no message", gone, 60000, true, false},
    {"what a lost session held is given back", given_back, 240000, true, false},
    {"a silent peer does not hold connect() beyond its deadline", silent_at_connect, 40000, true, false},
    {"a black hole does not hold connect() beyond its deadline", hole, 60000, true, false},
    {"answers that come a byte at a time hold neither connect() nor check() beyond the deadline", drip, 60000,
     true, false},
    {"a silent network does not hold check() beyond its deadline", check_in_silence, 30000, true, false},
    {"check() tells that the connection is gone", check_tells, 40000, true, false},
    {"interrupt() ends a connect() that waits, within 1 s", interrupt_connect, 60000, true, false},
    {"and a check(), every time", interrupt_check, 60000, true, false},
    {NULL, NULL, 0, false, false},
};
