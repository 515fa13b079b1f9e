#include "kit/kit_stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "plugin/backend.h"

void kit_fail(struct kit_stage *stage, const char *format, ...)
{
    if (!atomic_exchange(&stage->board->failed, true)) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(stage->board->text, sizeof stage->board->text, format, args);
        va_end(args);
        atomic_store(&stage->board->finished, true);
        _exit(1);
    }
    for (;;) {
        (void)pause(); /* another thread failed first: its sentence is being written, and ends the process */
    }
}

void kit_skip(struct kit_stage *stage, const char *why)
{
    (void)snprintf(stage->board->text, sizeof stage->board->text, "%s", why);
    atomic_store(&stage->board->skipped, true);
    atomic_store(&stage->board->finished, true);
    _exit(0);
}

void kit_skip_past(struct kit_stage *stage, const char *why)
{
    atomic_store(&stage->board->past, true);
    kit_skip(stage, why);
}

void kit_skip_renamed(struct kit_stage *stage, const char *why)
{
    char text[KIT_TEXT_BYTES];
    (void)snprintf(
        text, sizeof text,
        "the kit's proxy is 127.0.0.1, and that does not do in place of %.200s (certificates are made "
        "for names): let the name be 127.0.0.1 in /etc/hosts, and the broker there (%.200s)",
        stage->renamed, why);
    kit_skip_past(stage, text);
}

void kit_note(struct kit_stage *stage, const char *text)
{
    (void)snprintf(stage->board->note, sizeof stage->board->note, "%s", text);
}

void kit_hint(struct kit_stage *stage, const char *text)
{
    (void)snprintf(stage->board->hint, sizeof stage->board->hint, "%s", text);
}

const char *kit_option_text(const struct option_set *settings, size_t index)
{
    const struct option_value *value = &settings->values[index];
    return settings->table[index].type == OUTBOX_OPT_LIST && value->count > 0 ? value->items[0] : value->text;
}

/* ---- calls, watched ---- */

/* One call, from begin() to end(); two threads may have one each, and the board shows the latest. */
struct watch {
    enum kit_call call;
    int64_t must_end_ms;
};

const char *kit_call_name(enum kit_call call)
{
    static const char *const names[CALLS] = {
        [CALL_NONE] = "",
        [CALL_OPEN] = "open()",
        [CALL_CLOSE] = "close()",
        [CALL_SESSION_NEW] = "session_new()",
        [CALL_SESSION_FREE] = "session_free()",
        [CALL_CONNECT] = "connect()",
        [CALL_DISCONNECT] = "disconnect()",
        [CALL_CHECK] = "check()",
        [CALL_PUBLISH] = "publish()",
        [CALL_EXPLAIN] = "explain()",
        [CALL_LIBRARY] = "library()",
        [CALL_EXIT] = "a destructor, or what runs at exit,",
    };
    return call >= CALL_NONE && call < CALLS ? names[call] : "";
}

static struct watch begin(struct kit_stage *stage, enum kit_call call, int64_t wait_ms)
{
    struct watch watch = {call, clock_now_ms() + wait_ms};
    atomic_store(&stage->board->must_end_ms, watch.must_end_ms);
    atomic_store(&stage->board->call, (int)call);
    return watch;
}

static void end(struct kit_stage *stage, struct watch watch)
{
    int64_t late_ms = clock_now_ms() - watch.must_end_ms;
    atomic_store(&stage->board->must_end_ms, 0);
    atomic_store(&stage->board->call, (int)CALL_NONE);
    if (late_ms > KIT_LATE_MS) {
        kit_fail(stage, "%s returned %lld ms after it had to: wait only for what is left of the deadline",
                 kit_call_name(watch.call), (long long)late_ms);
    }
}

void kit_leave(struct kit_stage *stage)
{
    (void)begin(stage, CALL_EXIT, KIT_SOON_MS);
    exit(0);
}

/* The same for calls that interrupt() may end. */
static struct watch begin_long(struct kit_session *session, enum kit_call call, int64_t wait_ms)
{
    (void)pthread_mutex_lock(&session->lock);
    session->in_call = true;
    (void)pthread_mutex_unlock(&session->lock);
    return begin(session->stage, call, wait_ms);
}

static void end_long(struct kit_session *session, struct watch watch)
{
    (void)pthread_mutex_lock(&session->lock);
    session->in_call = false;
    (void)pthread_mutex_unlock(&session->lock);
    end(session->stage, watch);
}

/* Texts reach logs: what stands in payloads, headers and secrets must not stand in them. */
static void expect_discretion(struct kit_stage *stage, const char *whose, const char *text)
{
    if (strstr(text, KIT_MARK)) {
        kit_fail(stage,
                 "%s quotes a payload or a header's value: it reaches logs, so name it, and keep quiet about "
                 "what it holds",
                 whose);
    }
    if (strstr(text, KIT_SECRET)) {
        kit_fail(stage, "%s holds the value of a setting that is secret: it reaches logs", whose);
    }
}

static void expect_text(struct kit_stage *stage, enum kit_call call, const struct outbox_error *error)
{
    char whose[64];
    if (error->text[0] == '\0') {
        kit_fail(stage, "%s failed without a reason: write a sentence with cause and fix into error->text",
                 kit_call_name(call));
    }
    if (!memchr(error->text, '\0', sizeof error->text)) {
        kit_fail(stage, "%s filled error->text to the brim: end it with a NUL byte", kit_call_name(call));
    }
    (void)snprintf(whose, sizeof whose, "the error of %s", kit_call_name(call));
    expect_discretion(stage, whose, error->text);
}

static int try_open(struct kit_stage *stage, struct outbox_error *error)
{
    *error = (struct outbox_error){.size = sizeof *error};
    struct watch watch = begin(stage, CALL_OPEN, KIT_SOON_MS);
    int result = stage->table->open(&stage->backend, &stage->host.services, &stage->host.settings, error);
    end(stage, watch);
    if (result != 0) {
        expect_text(stage, CALL_OPEN, error);
    }
    return result == 0 ? 0 : -1;
}

int kit_try_open(struct kit_stage *stage)
{
    struct outbox_error error;
    return try_open(stage, &error);
}

void kit_open(struct kit_stage *stage)
{
    struct outbox_error error;
    if (try_open(stage, &error) != 0) {
        kit_fail(stage, "open() refused the settings: %s", error.text);
    }
}

void kit_close(struct kit_stage *stage)
{
    struct watch watch = begin(stage, CALL_CLOSE, KIT_SOON_MS);
    stage->table->close(stage->backend);
    end(stage, watch);
    stage->backend = NULL;
}

void kit_session_new(struct kit_session *session, struct kit_stage *stage)
{
    *session = (struct kit_session){.stage = stage, .error = {.size = sizeof session->error}};
    (void)pthread_mutex_init(&session->lock, NULL);
    struct watch watch = begin(stage, CALL_SESSION_NEW, KIT_SOON_MS);
    int result = stage->table->session_new(stage->backend, &session->object, &session->error);
    end(stage, watch);
    if (result != 0) {
        expect_text(stage, CALL_SESSION_NEW, &session->error);
        kit_fail(stage, "session_new() failed: %s", session->error.text);
    }
}

void kit_session_free(struct kit_session *session)
{
    struct watch watch = begin(session->stage, CALL_SESSION_FREE, KIT_SOON_MS);
    session->stage->table->session_free(session->object);
    end(session->stage, watch);
}

int kit_try_connect(struct kit_session *session, int64_t wait_ms)
{
    struct kit_stage *stage = session->stage;
    session->error = (struct outbox_error){.size = sizeof session->error};
    struct watch watch = begin_long(session, CALL_CONNECT, wait_ms);
    int result = stage->table->connect(session->object, clock_now_ms() + wait_ms, &session->error);
    end_long(session, watch);
    if (result != 0) {
        expect_text(stage, CALL_CONNECT, &session->error);
        return -1;
    }
    session->connected = true;
    atomic_store(&stage->board->reached, true);
    return 0;
}

void kit_connect(struct kit_session *session)
{
    bool connected = kit_try_connect(session, 10000) == 0;
    if (!connected && session->stage->renamed[0]) {
        kit_skip_renamed(session->stage, session->error.text);
    }
    if (!connected) {
        atomic_store(&session->stage->board->away, !session->stage->proxy);
        kit_fail(session->stage, "connect() failed: %s (the kit needs a destination that works: see -o)",
                 session->error.text);
    }
}

void kit_disconnect(struct kit_session *session)
{
    if (session->connected) {
        struct watch watch = begin(session->stage, CALL_DISCONNECT, KIT_SOON_MS);
        session->stage->table->disconnect(session->object);
        end(session->stage, watch);
        session->connected = false;
    }
}

enum outbox_session_state kit_check(struct kit_session *session, int64_t wait_ms)
{
    struct kit_stage *stage = session->stage;
    if (!BACKEND_HAS(stage->table, check)) {
        return OUTBOX_SESSION_OK;
    }
    session->error = (struct outbox_error){.size = sizeof session->error};
    struct watch watch = begin_long(session, CALL_CHECK, wait_ms);
    enum outbox_session_state state =
        stage->table->check(session->object, clock_now_ms() + wait_ms, &session->error);
    end_long(session, watch);
    if (state != OUTBOX_SESSION_OK) {
        expect_text(stage, CALL_CHECK, &session->error);
    }
    return state;
}

/* ---- texts ---- */

enum { TEXT_ROOM = 2048, UNTOUCHED = 0x5a };

/* What was written into `room` stays within the bytes that it was given, and ends. */
static void judge_text(struct kit_stage *stage, enum kit_call call, const char *room, char *out,
                       size_t out_bytes)
{
    for (size_t at = out_bytes; at < TEXT_ROOM; at++) {
        if (room[at] != UNTOUCHED) {
            kit_fail(stage, "%s wrote beyond the %zu bytes that it was given", kit_call_name(call),
                     out_bytes);
        }
    }
    if (!memchr(room, '\0', out_bytes)) {
        kit_fail(stage, "%s did not end its text with a NUL byte within %zu bytes", kit_call_name(call),
                 out_bytes);
    }
    expect_discretion(stage, kit_call_name(call), room);
    memcpy(out, room, out_bytes);
}

bool kit_explain(struct kit_stage *stage, const struct outbox_message *message, char *out, size_t out_bytes)
{
    char room[TEXT_ROOM];
    struct outbox_error error = {.size = sizeof error};
    if (!BACKEND_HAS(stage->table, explain)) {
        return false;
    }
    memset(room, UNTOUCHED, sizeof room);
    struct watch watch = begin(stage, CALL_EXPLAIN, KIT_SOON_MS);
    int result = stage->table->explain(stage->backend, message, room, out_bytes, &error);
    end(stage, watch);
    if (result != 0) {
        expect_text(stage, CALL_EXPLAIN, &error);
        room[0] = '\0';
    }
    judge_text(stage, CALL_EXPLAIN, room, out, out_bytes);
    return true;
}

bool kit_library(struct kit_stage *stage, char *out, size_t out_bytes)
{
    char room[TEXT_ROOM];
    if (!BACKEND_HAS(stage->table, library)) {
        return false;
    }
    memset(room, UNTOUCHED, sizeof room);
    struct watch watch = begin(stage, CALL_LIBRARY, KIT_SOON_MS);
    stage->table->library(room, out_bytes);
    end(stage, watch);
    judge_text(stage, CALL_LIBRARY, room, out, out_bytes);
    return true;
}

/* ---- publish ---- */

enum { DAY_MS = 86400000 };

static void settle(struct outbox_batch *lent, size_t index, enum outbox_verdict verdict, const char *reason,
                   int64_t retry_after_ms)
{
    struct kit_batch *batch = (struct kit_batch *)lent;
    struct kit_stage *stage = batch->stage;
    if (!atomic_load(&batch->running)) {
        kit_fail(stage,
                 "settle() was called after publish() had returned: the batch is the host's again by then");
    }
    if (!pthread_equal(batch->thread, pthread_self())) {
        kit_fail(stage, "settle() was called from another thread than publish()");
    }
    if (index >= lent->count) {
        kit_fail(stage, "settle() was called for message %zu of a batch of %zu", index, lent->count);
    }
    struct kit_answer *answer = &batch->answers[index];
    if (answer->settled) {
        kit_fail(stage, "message %zu was settled twice: nothing is known of it then", index + 1);
    }
    if (verdict < OUTBOX_UNSETTLED || verdict > OUTBOX_REJECTED) {
        kit_fail(stage, "settle() was called with verdict %d, which does not exist", (int)verdict);
    }
    if (verdict != OUTBOX_CONFIRMED && (!reason || reason[0] == '\0')) {
        kit_fail(stage,
                 "message %zu was not confirmed and got no reason: write a sentence with cause and fix",
                 index + 1);
    }
    if (retry_after_ms > DAY_MS) {
        kit_fail(stage,
                 "settle() was called with a retry_after_ms of %lld: milliseconds from now on, 24 h at most",
                 (long long)retry_after_ms);
    }
    if (retry_after_ms < 0) {
        kit_fail(stage, "settle() was called with a negative retry_after_ms: 0 leaves it to the relay");
    }
    expect_discretion(stage, "the reason that settle() was given", reason ? reason : "");
    answer->settled = true;
    answer->verdict = verdict;
    (void)snprintf(answer->reason, sizeof answer->reason, "%s", reason ? reason : "");
}

/* Who settles later than publish() returns shows itself now, and is told so. */
static void wait_for_late_ones(void)
{
    const struct timespec wait = {0, 300 * 1000000L};
    (void)nanosleep(&wait, NULL);
}

static void judge(struct kit_batch *batch, const struct kit_session *session)
{
    size_t settled = 0;
    for (size_t at = 0; at < batch->lent.count; at++) {
        settled += batch->answers[at].settled;
    }
    if (batch->state < OUTBOX_SESSION_LOST || batch->state > OUTBOX_SESSION_BUSY) {
        kit_fail(batch->stage, "publish() returned %d, which is no session state", (int)batch->state);
    }
    if (batch->state == OUTBOX_SESSION_OK && settled < batch->lent.count) {
        wait_for_late_ones();
        kit_fail(batch->stage,
                 "publish() said OK and left %zu of %zu messages without settle(): say LOST, or settle them",
                 batch->lent.count - settled, batch->lent.count);
    }
    if (batch->state == OUTBOX_SESSION_OK && settled > 0 && kit_count(batch, OUTBOX_UNSETTLED) == settled) {
        kit_fail(batch->stage, "publish() said OK and sent nothing: say LOST, or BUSY");
    }
    if (batch->state != OUTBOX_SESSION_OK) {
        expect_text(batch->stage, CALL_PUBLISH, &session->error);
    }
    if (batch->state == OUTBOX_SESSION_BUSY && session->error.retry_after_ms < 0) {
        kit_fail(batch->stage,
                 "publish() said BUSY with a negative retry_after_ms: 0 leaves it to the relay");
    }
}

void kit_publish(struct kit_batch *batch, struct kit_session *session, struct kit_messages *messages,
                 int64_t wait_ms)
{
    struct kit_stage *stage = session->stage;
    *batch = (struct kit_batch){.lent = {.size = sizeof(struct outbox_batch),
                                         .count = messages->count,
                                         .messages = messages->pointers,
                                         .settle = settle},
                                .stage = stage,
                                .messages = messages,
                                .thread = pthread_self(),
                                .wait_ms = wait_ms,
                                .answers = calloc(messages->count + 1, sizeof *batch->answers)};
    if (!batch->answers) {
        kit_fail(stage, "the kit is out of memory");
    }
    session->error = (struct outbox_error){.size = sizeof session->error};
    atomic_store(&batch->running, true);
    struct watch watch = begin_long(session, CALL_PUBLISH, wait_ms > 0 ? wait_ms : 0);
    batch->state =
        stage->table->publish(session->object, &batch->lent, clock_now_ms() + wait_ms, &session->error);
    atomic_store(&batch->running, false);
    end_long(session, watch);
    kit_messages_forbid(messages);
    judge(batch, session);
}

void kit_batch_finish(struct kit_batch *batch)
{
    free(batch->answers);
    batch->answers = NULL;
}

size_t kit_count(const struct kit_batch *batch, enum outbox_verdict verdict)
{
    size_t count = 0;
    for (size_t at = 0; at < batch->lent.count; at++) {
        count += batch->answers[at].settled && batch->answers[at].verdict == verdict;
    }
    return count;
}

void kit_expect_confirmed(const struct kit_batch *batch, const struct kit_session *session, const char *what)
{
    static const char *const names[] = {"UNSETTLED", "CONFIRMED", "HOLD", "RETRY", "REJECTED"};
    for (size_t at = 0; at < batch->lent.count; at++) {
        const struct kit_answer *answer = &batch->answers[at];
        if (!answer->settled) {
            wait_for_late_ones();
            kit_fail(
                batch->stage,
                "%s: message %zu of %zu got no verdict within %lld s, and the session is lost or busy: %s",
                what, at + 1, batch->lent.count, (long long)batch->wait_ms / 1000, session->error.text);
        }
        if (answer->verdict != OUTBOX_CONFIRMED) {
            kit_fail(batch->stage, "%s: message %zu of %zu is %s: %s", what, at + 1, batch->lent.count,
                     names[answer->verdict], answer->reason);
        }
    }
    if (batch->state != OUTBOX_SESSION_OK) {
        kit_fail(batch->stage, "%s: all were confirmed, and yet the session is not OK: %s", what,
                 session->error.text);
    }
}
