/* null - confirms everything and sends nothing: for measuring the database's side alone. */
#include "outbox_backend.h"

static int null_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                     struct outbox_error *error)
{
    (void)host;
    (void)settings;
    (void)error;
    *backend = NULL;
    return 0;
}

static void null_close(void *backend)
{
    (void)backend;
}

static int null_session_new(void *backend, void **session, struct outbox_error *error)
{
    (void)backend;
    (void)error;
    *session = NULL;
    return 0;
}

static void null_session_free(void *session)
{
    (void)session;
}

static int null_connect(void *session, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session;
    (void)deadline_ms;
    (void)error;
    return 0;
}

static void null_disconnect(void *session)
{
    (void)session;
}

static enum outbox_session_state null_publish(void *session, struct outbox_batch *batch, int64_t deadline_ms,
                                              struct outbox_error *error)
{
    (void)session;
    (void)deadline_ms;
    (void)error;
    for (size_t at = 0; at < batch->count; at++) {
        batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
    }
    return OUTBOX_SESSION_OK;
}

static const struct outbox_option null_options[] = {{0}};

static const struct outbox_backend null_backend = {
    .size = sizeof(struct outbox_backend),
    .name = "null",
    .version = "1.0.0",
    .options = null_options,
    .open = null_open,
    .close = null_close,
    .session_new = null_session_new,
    .session_free = null_session_free,
    .connect = null_connect,
    .disconnect = null_disconnect,
    .publish = null_publish,
};

OUTBOX_BACKEND("null", "1.0.0", null_backend);
