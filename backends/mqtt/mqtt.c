/*
 * mqtt - MQTT by libmosquitto: each message is published with QoS 1 under topic ${channel}. The second
 * tutorial of backends/README.md: a library that works in a thread of its own and answers by callbacks.
 *
 * CONFIRMED means that the broker sent PUBACK. MQTT 3.1.1 knows no other answer: a broker that takes a
 * message and drops it, because an access list says so, acknowledges it all the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <mosquitto.h>
#include <outbox_backend.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
    WINDOW = 500,
    KEEPALIVE_S = 10,
    GOODBYE_MS = 200,
    AGAIN_MS = 20,
    TOPIC_BYTES = 1024,
    PAYLOAD_MAX_BYTES = 268435455
};

struct mqtt { /* one per process: what the settings say */
    const struct outbox_host *host;
    const char *address, *username, *password, *topic;
};

/*
 * One per worker thread. The library's thread and interrupt() touch it, too: everything behind `lock` is
 * theirs as well, and nobody waits for the network while he holds it.
 */
struct session {
    const struct mqtt *mqtt;
    struct mosquitto *client; /* lives from connect() to disconnect(), and with it its thread: no callback of
                                 an earlier connection can speak to a later batch */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool connected, lost, interrupted;
    int acked[WINDOW]; /* the library's numbers of what was acknowledged, and publish() has not yet seen */
    size_t acked_count;
    char why[128];
};

/* ---- callbacks: in the library's thread ---- */

/* All they do is to leave a note, and to wake whoever waits for it. */
static void tell(struct session *session, bool *flag, const char *why)
{
    (void)pthread_mutex_lock(&session->lock);
    *flag = true;
    (void)snprintf(session->why, sizeof session->why, "%s", why);
    (void)pthread_cond_broadcast(&session->changed);
    (void)pthread_mutex_unlock(&session->lock);
}

static void on_connect(struct mosquitto *client, void *object, int code)
{
    struct session *session = object;
    (void)client;
    tell(session, code == 0 ? &session->connected : &session->lost, mosquitto_connack_string(code));
}

static void on_disconnect(struct mosquitto *client, void *object, int code)
{
    struct session *session = object;
    (void)mosquitto_disconnect(client); /* or its thread would connect again, behind our back */
    tell(session, &session->lost, code == 0 ? "disconnected" : mosquitto_strerror(code));
}

static void on_publish(struct mosquitto *client, void *object, int mid)
{
    struct session *session = object;
    (void)client;
    (void)pthread_mutex_lock(&session->lock);
    if (session->acked_count < WINDOW) { /* there are never more on the way */
        session->acked[session->acked_count++] = mid;
    }
    (void)pthread_cond_broadcast(&session->changed);
    (void)pthread_mutex_unlock(&session->lock);
}

/* ---- waiting: in the worker's thread ---- */

static int fail(struct outbox_error *error, enum outbox_error_kind kind, const char *why)
{
    error->kind = kind;
    (void)snprintf(error->text, sizeof error->text, "mqtt: %s", why);
    return -1;
}

/* Until somebody has told something, or the deadline has passed; the lock is held. The relay's deadlines are
 * of CLOCK_MONOTONIC, and so is the condition's clock. */
static bool wait_until(struct session *session, int64_t deadline_ms)
{
    const struct timespec until = {deadline_ms / 1000, (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&session->changed, &session->lock, &until) != ETIMEDOUT;
}

static bool is_over(const struct session *session)
{
    return session->lost || session->interrupted;
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- lives ---- */

static int mqtt_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                     struct outbox_error *error)
{
    struct mqtt *mqtt = calloc(1, sizeof *mqtt);
    if (!mqtt || mosquitto_lib_init() != MOSQ_ERR_SUCCESS) {
        free(mqtt);
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    *mqtt = (struct mqtt){.host = host,
                          .address = host->get_string(settings, "address"),
                          .username = host->get_string(settings, "username"),
                          .password = host->get_string(settings, "password"),
                          .topic = host->get_string(settings, "topic")};
    *backend = mqtt;
    return 0;
}

static void mqtt_close(void *backend)
{
    (void)mosquitto_lib_cleanup();
    free(backend);
}

static int mqtt_session_new(void *backend, void **out, struct outbox_error *error)
{
    struct session *session = calloc(1, sizeof *session);
    pthread_condattr_t monotonic;
    if (!session) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->mqtt = backend;
    (void)pthread_mutex_init(&session->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&session->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    *out = session;
    return 0;
}

static void mqtt_session_free(void *object)
{
    struct session *session = object;
    (void)pthread_cond_destroy(&session->changed);
    (void)pthread_mutex_destroy(&session->lock);
    free(session);
}

/* Says goodbye if that takes no waiting, and then ends the library's thread: its socket is dead, so it cannot
 * hang on it. */
static void mqtt_disconnect(void *object)
{
    struct session *session = object;
    int64_t deadline_ms = now_ms() + GOODBYE_MS;
    bool goodbye = mosquitto_disconnect(session->client) == MOSQ_ERR_SUCCESS;
    if (goodbye) {
        (void)pthread_mutex_lock(&session->lock);
        while (!session->lost && wait_until(session, deadline_ms)) {
        }
        (void)pthread_mutex_unlock(&session->lock);
    }
    int fd = mosquitto_socket(session->client);
    if (fd >= 0) {
        (void)shutdown(fd, SHUT_RDWR);
    }
    if (!goodbye) { /* a try of its thread to connect again takes it back, if it was just about to begin */
        (void)poll(NULL, 0, AGAIN_MS);
        (void)mosquitto_disconnect(session->client);
    }
    (void)mosquitto_loop_stop(session->client, false);
    mosquitto_destroy(session->client);
    session->client = NULL;
}

static struct mosquitto *make_client(struct session *session)
{
    const struct mqtt *mqtt = session->mqtt;
    struct mosquitto *client = mosquitto_new(NULL, true, session);
    if (!client) {
        return NULL;
    }
    (void)mosquitto_int_option(client, MOSQ_OPT_TCP_NODELAY, 1);
    (void)mosquitto_max_inflight_messages_set(client, WINDOW);
    (void)mosquitto_username_pw_set(client, mqtt->username, mqtt->password);
    mosquitto_connect_callback_set(client, on_connect);
    mosquitto_disconnect_callback_set(client, on_disconnect);
    mosquitto_publish_callback_set(client, on_publish);
    return client;
}

static int mqtt_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    const char *colon = strrchr(session->mqtt->address, ':');
    char host[256];
    if (!colon || (size_t)(colon - session->mqtt->address) >= sizeof host) {
        return fail(error, OUTBOX_ERROR_CONFIG, "option 'address' is not HOST:PORT");
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - session->mqtt->address), session->mqtt->address);
    session->connected = session->lost = session->interrupted = false; /* nobody else is there yet */
    session->acked_count = 0;
    session->client = make_client(session);
    if (!session->client) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    /* Not mosquitto_connect(), which waits for the network, as long as that likes. */
    int code = mosquitto_connect_async(session->client, host, (int)strtol(colon + 1, NULL, 10), KEEPALIVE_S);
    code = code == MOSQ_ERR_SUCCESS ? mosquitto_loop_start(session->client) : code;
    (void)pthread_mutex_lock(&session->lock);
    while (code == MOSQ_ERR_SUCCESS && !session->connected && !is_over(session) &&
           wait_until(session, deadline_ms)) {
    }
    bool ready = session->connected && !is_over(session);
    (void)fail(error, OUTBOX_ERROR_UNAVAILABLE,
               code != MOSQ_ERR_SUCCESS ? mosquitto_strerror(code)
               : session->lost          ? session->why
               : session->interrupted   ? "interrupted"
                                        : "no CONNACK by the deadline");
    (void)pthread_mutex_unlock(&session->lock);
    if (!ready) {
        mqtt_disconnect(session);
        return -1;
    }
    return 0;
}

/* ---- publish ---- */

/* The library's numbers of what is on the way, and which message of the batch each is. */
struct window {
    int mids[WINDOW];
    size_t indexes[WINDOW];
    size_t count;
};

/* False if the connection is gone. The library copies what it is given: nothing of the batch stays with it.
 */
static bool send_one(struct session *session, struct outbox_batch *batch, size_t index, struct window *window,
                     int64_t began_ms)
{
    char topic[TOPIC_BYTES];
    const struct mqtt *mqtt = session->mqtt;
    const struct outbox_message *message = batch->messages[index];
    int mid = 0;
    if (message->ttl_ms >= 0 && now_ms() - began_ms >= message->ttl_ms) {
        batch->settle(batch, index, OUTBOX_UNSETTLED, "it expired before it could be sent", 0);
        return true;
    }
    if (mqtt->host->render(mqtt->host, mqtt->topic, message, topic, sizeof topic) <= 0 ||
        message->payload.len > PAYLOAD_MAX_BYTES) {
        batch->settle(batch, index, OUTBOX_REJECTED, "MQTT takes no such topic, or no payload of that size",
                      0);
        return true;
    }
    int code = mosquitto_publish(session->client, &mid, topic, (int)message->payload.len,
                                 message->payload.ptr, 1, false);
    if (code == MOSQ_ERR_INVAL || code == MOSQ_ERR_MALFORMED_UTF8 || code == MOSQ_ERR_PAYLOAD_SIZE ||
        code == MOSQ_ERR_OVERSIZE_PACKET) {
        batch->settle(batch, index, OUTBOX_REJECTED, mosquitto_strerror(code), 0);
        return true;
    }
    if (code != MOSQ_ERR_SUCCESS) {
        return false;
    }
    window->mids[window->count] = mid;
    window->indexes[window->count++] = index;
    return true;
}

/* What the callbacks have noted, and only what is of this window. */
static void take_acks(struct session *session, struct outbox_batch *batch, struct window *window)
{
    for (size_t at = 0; at < session->acked_count; at++) {
        size_t found = 0;
        while (found < window->count && window->mids[found] != session->acked[at]) {
            found++;
        }
        if (found < window->count) {
            batch->settle(batch, window->indexes[found], OUTBOX_CONFIRMED, NULL, 0);
            window->count--;
            window->mids[found] = window->mids[window->count];
            window->indexes[found] = window->indexes[window->count];
        }
    }
    session->acked_count = 0;
}

static enum outbox_session_state mqtt_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                              struct outbox_error *error)
{
    struct session *session = object;
    struct window window = {.count = 0};
    const int64_t began_ms = now_ms();
    size_t next = 0;
    bool alive = true;
    while (alive && (next < batch->count || window.count > 0)) {
        while (alive && next < batch->count && window.count < WINDOW) {
            /* without the lock: the library has its own */
            alive = send_one(session, batch, next++, &window, began_ms);
        }
        (void)pthread_mutex_lock(&session->lock);
        while (alive && window.count > 0 && session->acked_count == 0) {
            alive = !is_over(session) && wait_until(session, deadline_ms);
        }
        take_acks(session, batch, &window);
        alive = alive && !is_over(session);
        (void)fail(error, OUTBOX_ERROR_UNAVAILABLE,
                   session->lost ? session->why : "no PUBACK by the deadline");
        (void)pthread_mutex_unlock(&session->lock);
    }
    return alive ? OUTBOX_SESSION_OK : OUTBOX_SESSION_LOST; /* who has no answer stays unsettled */
}

static enum outbox_session_state mqtt_check(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    (void)deadline_ms;
    (void)pthread_mutex_lock(&session->lock);
    bool lost = session->lost;
    (void)fail(error, OUTBOX_ERROR_UNAVAILABLE, session->why);
    (void)pthread_mutex_unlock(&session->lock);
    return lost ? OUTBOX_SESSION_LOST : OUTBOX_SESSION_OK;
}

/* From another thread: one more that leaves a note. */
static void mqtt_interrupt(void *object)
{
    struct session *session = object;
    tell(session, &session->interrupted, "interrupted");
}

/* ---- the table ---- */

static void mqtt_library(char *out, size_t out_bytes)
{
    int major = 0, minor = 0, revision = 0;
    (void)mosquitto_lib_version(&major, &minor, &revision);
    (void)snprintf(out, out_bytes, "libmosquitto %d.%d.%d", major, minor, revision);
}

static const struct outbox_option options[] = {
    {"address", OUTBOX_OPT_STRING, 0, "127.0.0.1:1883", NULL, 0, 0, "HOST:PORT of the broker"},
    {"username", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "who we are; without it, anybody"},
    {"password", OUTBOX_OPT_STRING, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0, "for that user"},
    {"topic", OUTBOX_OPT_STRING, 0, "${channel}", NULL, 0, 0, "topic, a template"},
    {0},
};

static const struct outbox_backend table = {
    .size = sizeof(struct outbox_backend),
    .name = "mqtt",
    .version = "0.1.0",
    .options = options,
    .open = mqtt_open,
    .close = mqtt_close,
    .session_new = mqtt_session_new,
    .session_free = mqtt_session_free,
    .connect = mqtt_connect,
    .disconnect = mqtt_disconnect,
    .publish = mqtt_publish,
    .check = mqtt_check,
    .interrupt = mqtt_interrupt,
    .library = mqtt_library,
};

OUTBOX_BACKEND("mqtt", "0.1.0", table);
