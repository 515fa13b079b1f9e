/*
 * amqp - RabbitMQ over AMQP 0-9-1, with publisher confirms and mandatory routing.
 *
 * A message counts as CONFIRMED only when the broker acked it and did not return it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "envelope.h"
#include "frames.h"
#include "publish.h"

static int amqp_open(void **backend, const struct outbox_host *host, const struct outbox_settings *from,
                     struct outbox_error *error)
{
    struct settings *settings = calloc(1, sizeof *settings);
    if (!settings) {
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    if (settings_read(settings, host, from, error) != 0) {
        free(settings);
        return -1;
    }
    *backend = settings;
    return 0;
}

static void amqp_close(void *backend)
{
    free(backend);
}

static int amqp_session_new(void *backend, void **out, struct outbox_error *error)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->settings = backend;
    session->interrupt_fd = -1;
    (void)pthread_mutex_init(&session->interrupt_lock, NULL);
    *out = session;
    return 0;
}

static void amqp_session_free(void *object)
{
    struct session *session = object;
    confirms_finish(&session->confirms);
    exchanges_clear(&session->exchanges);
    (void)pthread_mutex_destroy(&session->interrupt_lock);
    free(session->entries);
    free(session);
}

static int amqp_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    return connection_open(object, deadline_ms, error);
}

static void amqp_disconnect(void *object)
{
    connection_close(object);
}

static enum outbox_session_state amqp_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                              struct outbox_error *error)
{
    return publish_batch(object, batch, deadline_ms, error);
}

static enum outbox_session_state amqp_check(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    (void)deadline_ms; /* never waits */
    struct session *session = object;
    if (frames_drain(session, error) == FRAMES_LOST) {
        return OUTBOX_SESSION_LOST;
    }
    if (session->blocked) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "the broker blocks publishers: %s",
                            session->blocked_reason);
        return OUTBOX_SESSION_BUSY;
    }
    return OUTBOX_SESSION_OK;
}

static void amqp_interrupt(void *object)
{
    connection_interrupt(object);
}

static int amqp_explain(void *backend, const struct outbox_message *message, char *out, size_t out_bytes,
                        struct outbox_error *error)
{
    struct envelope envelope;
    char reason[256] = "";
    void *object = NULL;
    if (amqp_session_new(backend, &object, error) != 0 || !object) {
        return -1;
    }
    struct session *session = object;
    session->frame_max = AMQP_DEFAULT_FRAME_SIZE; /* the broker may agree to less */
    broker_read(&session->broker, NULL);
    bool good = envelope_seal(session, message, &envelope, reason) == OUTBOX_UNSETTLED;
    amqp_session_free(session); /* the envelope's headers are gone with it */
    if (!good) {
        return session_error(error, OUTBOX_ERROR_CONFIG, "%s", reason);
    }
    (void)snprintf(out, out_bytes, "%s%s, %s %s", envelope.exchange[0] ? "exchange " : "the default exchange",
                   envelope.exchange, envelope.exchange[0] ? "routing key" : "queue", envelope.routing_key);
    return 0;
}

static void amqp_library(char *out, size_t out_bytes)
{
    char package[64] = "";
    if (library_is_of_system()) {
        library_read_package("/var/lib/dpkg/status", package, sizeof package);
    }
    library_describe(amqp_version(), package, out, out_bytes);
}

static const struct outbox_backend amqp_backend = {
    .size = sizeof(struct outbox_backend),
    .name = "amqp",
    .version = "1.0.0",
    .options = amqp_options,
    .open = amqp_open,
    .close = amqp_close,
    .session_new = amqp_session_new,
    .session_free = amqp_session_free,
    .connect = amqp_connect,
    .disconnect = amqp_disconnect,
    .publish = amqp_publish,
    .check = amqp_check,
    .interrupt = amqp_interrupt,
    .explain = amqp_explain,
    .library = amqp_library,
};

OUTBOX_BACKEND("amqp", "1.0.0", amqp_backend);
