/*
 * fail - answers as its script says: for tests of the relay, and of what you built around it. Sends nothing.
 *
 * fail.script lists what becomes of one message after the other, over and over; a header "fail" on a message
 * says it for this one.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "outbox_backend.h"

enum step { CONFIRM, HOLD, RETRY, REJECT, NOT_SENT, LOSE, BUSY, HANG, STEPS };

static const char *const step_names[STEPS] = {"confirm",   "hold", "retry", "reject",
                                              "unsettled", "lost", "busy",  "hang"};

struct script {
    enum step *steps;
    size_t count;
    atomic_size_t next; /* sessions of several workers share one script */
    int64_t retry_after_ms;
    const char *connect;
};

struct session {
    struct script *script;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool interrupted;
};

static int fault(struct outbox_error *error, enum outbox_error_kind kind, const char *text)
{
    error->kind = kind;
    (void)snprintf(error->text, sizeof error->text, "%s", text);
    return -1;
}

/* -1 if it is none. */
static int step_of(const char *word, size_t len)
{
    for (int step = 0; step < STEPS; step++) {
        if (strlen(step_names[step]) == len && memcmp(step_names[step], word, len) == 0) {
            return step;
        }
    }
    return -1;
}

static void fail_close(void *backend)
{
    struct script *script = backend;
    free(script->steps);
    free(script);
}

static int fail_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                     struct outbox_error *error)
{
    const char *const *words = NULL;
    size_t count = host->get_list(settings, "script", &words);
    struct script *script = calloc(1, sizeof *script);
    enum step *steps = calloc(count + 1, sizeof *steps);
    if (!script || !steps) {
        free(script);
        free(steps);
        return fault(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    *script = (struct script){.steps = steps,
                              .count = count > 0 ? count : 1,
                              .retry_after_ms = host->get_int(settings, "retry_after"),
                              .connect = host->get_string(settings, "connect")};
    for (size_t at = 0; at < count; at++) {
        int step = step_of(words[at], strlen(words[at]));
        if (step < 0) {
            char text[256];
            (void)snprintf(
                text, sizeof text,
                "fail.script: '%.60s' is none of confirm, hold, retry, reject, unsettled, lost, busy, hang",
                words[at]);
            fail_close(script);
            return fault(error, OUTBOX_ERROR_CONFIG, text);
        }
        steps[at] = (enum step)step;
    }
    *backend = script;
    return 0;
}

static int fail_session_new(void *backend, void **out, struct outbox_error *error)
{
    pthread_condattr_t monotonic;
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return fault(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->script = backend;
    (void)pthread_mutex_init(&session->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&session->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    *out = session;
    return 0;
}

static void fail_session_free(void *object)
{
    struct session *session = object;
    (void)pthread_cond_destroy(&session->changed);
    (void)pthread_mutex_destroy(&session->lock);
    free(session);
}

/* Until the deadline, or interrupt(). */
static void hang(struct session *session, int64_t deadline_ms)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ms / 1000),
                             .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
    int waited = 0;
    (void)pthread_mutex_lock(&session->lock);
    while (!session->interrupted && waited == 0) {
        waited = pthread_cond_timedwait(&session->changed, &session->lock, &until);
    }
    session->interrupted = false;
    (void)pthread_mutex_unlock(&session->lock);
}

static void fail_interrupt(void *object)
{
    struct session *session = object;
    (void)pthread_mutex_lock(&session->lock);
    session->interrupted = true;
    (void)pthread_cond_signal(&session->changed);
    (void)pthread_mutex_unlock(&session->lock);
}

static int fail_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    const char *how = session->script->connect;
    session->interrupted = false;
    if (strcmp(how, "hang") == 0) {
        hang(session, deadline_ms);
    }
    if (strcmp(how, "ok") == 0) {
        return 0;
    }
    return fault(error,
                 strcmp(how, "refused") == 0  ? OUTBOX_ERROR_REFUSED
                 : strcmp(how, "config") == 0 ? OUTBOX_ERROR_CONFIG
                                              : OUTBOX_ERROR_UNAVAILABLE,
                 "fail.connect says so");
}

static void fail_disconnect(void *session)
{
    (void)session;
}

/* The header "fail" of a message, or the script's next step. */
static enum step step_for(struct script *script, const struct outbox_message *message)
{
    for (size_t at = 0; at < message->header_count; at++) {
        const struct outbox_header *header = outbox_header_at(message, at);
        if (header->name.len == 4 && memcmp(header->name.ptr, "fail", 4) == 0) {
            int step = step_of(header->value.ptr, header->value.len);
            return step < 0 ? REJECT : (enum step)step;
        }
    }
    return script->steps[atomic_fetch_add(&script->next, 1) % script->count];
}

static enum outbox_session_state fail_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                              struct outbox_error *error)
{
    static const enum outbox_verdict verdicts[] = {[CONFIRM] = OUTBOX_CONFIRMED,
                                                   [HOLD] = OUTBOX_HOLD,
                                                   [RETRY] = OUTBOX_RETRY,
                                                   [REJECT] = OUTBOX_REJECTED,
                                                   [NOT_SENT] = OUTBOX_UNSETTLED};
    struct session *session = object;
    int64_t retry_after_ms = session->script->retry_after_ms;
    (void)fault(error, OUTBOX_ERROR_UNAVAILABLE, "the script of backend fail says so");
    for (size_t at = 0; at < batch->count; at++) {
        enum step step = step_for(session->script, batch->messages[at]);
        switch (step) {
        case HANG:
            hang(session, deadline_ms);
            return OUTBOX_SESSION_LOST;
        case LOSE:
            return OUTBOX_SESSION_LOST;
        case BUSY:
            error->retry_after_ms = retry_after_ms;
            return OUTBOX_SESSION_BUSY;
        default:
            batch->settle(batch, at, verdicts[step], step == CONFIRM ? NULL : error->text, retry_after_ms);
        }
    }
    return OUTBOX_SESSION_OK;
}

static const struct outbox_option fail_options[] = {
    {"script", OUTBOX_OPT_LIST, 0, "confirm", NULL, 0, 0,
     "what becomes of each message in turn: confirm, hold, retry, reject, unsettled, lost, busy, hang"},
    {"connect", OUTBOX_OPT_CHOICE, 0, "ok", "ok|unavailable|refused|config|hang", 0, 0,
     "what becomes of connect()"},
    {"retry_after", OUTBOX_OPT_DURATION_MS, 0, "0", NULL, 0, 86400000,
     "said with hold, retry and busy; 0 = leave it to the relay"},
    {0},
};

static const struct outbox_backend fail_backend = {
    .size = sizeof(struct outbox_backend),
    .name = "fail",
    .version = "1.0.0",
    .options = fail_options,
    .open = fail_open,
    .close = fail_close,
    .session_new = fail_session_new,
    .session_free = fail_session_free,
    .connect = fail_connect,
    .disconnect = fail_disconnect,
    .publish = fail_publish,
    .interrupt = fail_interrupt,
};

OUTBOX_BACKEND("fail", "1.0.0", fail_backend);
