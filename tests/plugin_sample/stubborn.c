/*
 * stubborn - a backend of a bad day, for tests/faults/test_plugin.py: after `good` confirmed messages it
 * hangs and cannot be interrupted, crashes, says OK and settles nothing, asks for a pause without an end, or
 * for a short one again and again, with a line in the log for each message, stays when the process is to
 * end, ends it itself, asks for an option that it does not have, or tells how open to others its process is,
 * as its option `how` says.
 */
#include <outbox_backend.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct stubborn { /* tests give it one worker: no locks */
    const struct outbox_host *host;
    const struct outbox_settings *settings;
    const char *how;
    int64_t good;
};

static void tell_exposure(const struct outbox_host *host)
{
    char text[200];
    mode_t mask = umask(077);
    (void)umask(mask);
    (void)snprintf(text, sizeof text, "dumpable=%d no_new_privs=%d umask=%03o key_log=%s",
                   prctl(PR_GET_DUMPABLE), prctl(PR_GET_NO_NEW_PRIVS, 0UL, 0UL, 0UL, 0UL), (unsigned)mask,
                   getenv("SSLKEYLOGFILE") ? "set" : "unset");
    host->log(host, OUTBOX_LOG_INFO, text);
}

static int stubborn_open(void **backend, const struct outbox_host *host,
                         const struct outbox_settings *settings, struct outbox_error *error)
{
    struct stubborn *stubborn = calloc(1, sizeof *stubborn);
    if (!stubborn) {
        error->kind = OUTBOX_ERROR_UNAVAILABLE;
        (void)snprintf(error->text, sizeof error->text, "stubborn: out of memory");
        return -1;
    }
    stubborn->host = host;
    stubborn->settings = settings;
    stubborn->how = host->get_string(settings, "how");
    stubborn->good = host->get_int(settings, "good");
    if (strcmp(stubborn->how, "looks") == 0) {
        tell_exposure(host);
    }
    *backend = stubborn;
    return 0;
}

static void stubborn_close(void *backend)
{
    free(backend);
}

static int session_new(void *backend, void **out, struct outbox_error *error)
{
    (void)error;
    *out = backend;
    return 0;
}

static void session_free(void *session)
{
    (void)session;
}

static int session_connect(void *session, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session;
    (void)deadline_ms;
    (void)error;
    return 0;
}

static void session_disconnect(void *session)
{
    (void)session;
}

static bool stays; /* when the process ends */

__attribute__((destructor)) static void at_exit(void)
{
    while (stays) {
        (void)pause();
    }
}

static enum outbox_session_state session_publish(void *object, struct outbox_batch *batch,
                                                 int64_t deadline_ms, struct outbox_error *error)
{
    struct stubborn *stubborn = object;
    (void)deadline_ms;
    (void)error;
    for (size_t at = 0; at < batch->count; at++) {
        if (stubborn->good > 0) {
            stubborn->good--;
            batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
        } else if (strcmp(stubborn->how, "crash") == 0) {
            (void)raise(SIGSEGV);
        } else if (strcmp(stubborn->how, "pause") == 0) {
            batch->settle(batch, at, OUTBOX_HOLD, "not before the end of the world", INT64_MAX);
        } else if (strcmp(stubborn->how, "chatter") == 0) {
            stubborn->host->log(stubborn->host, OUTBOX_LOG_WARNING, "another message, and not now");
            batch->settle(batch, at, OUTBOX_HOLD, "not now", 1);
        } else if (strcmp(stubborn->how, "stay") == 0) {
            stays = true;
            batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
        } else if (strcmp(stubborn->how, "exit") == 0) {
            exit(0);
        } else if (strcmp(stubborn->how, "ask") == 0) {
            (void)stubborn->host->get_int(stubborn->settings, "undeclared");
        } else if (strcmp(stubborn->how, "hang") == 0) {
            for (;;) {
                (void)pause();
            }
        }
    }
    return OUTBOX_SESSION_OK;
}

static const struct outbox_option options[] = {
    {"how", OUTBOX_OPT_CHOICE, OUTBOX_OPT_REQUIRED, NULL,
     "hang|crash|unsettled|pause|chatter|stay|exit|ask|looks", 0, 0, "what it does"},
    {"good", OUTBOX_OPT_INT, 0, "5", NULL, 0, 1000000, "messages that it confirms before"},
    {0},
};

static const struct outbox_backend table = {
    .size = sizeof(struct outbox_backend),
    .name = "stubborn",
    .version = "1.0.0",
    .options = options,
    .open = stubborn_open,
    .close = stubborn_close,
    .session_new = session_new,
    .session_free = session_free,
    .connect = session_connect,
    .disconnect = session_disconnect,
    .publish = session_publish,
};

OUTBOX_BACKEND("stubborn", "1.0.0", table);
