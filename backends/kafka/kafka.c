/*
 * kafka - Apache Kafka by librdkafka: each message goes to topic ${channel}, with its key. An example of a
 * client that all workers share: a library that has one producer per process, threads of its own, and reports
 * of deliveries that come whenever they come.
 *
 * CONFIRMED means that all in-sync replicas have it (acks=all).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <outbox_backend.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLICE_MS = 100, GOODBYE_MS = 500, TOPIC_BYTES = 250 };

/* One producer and who uses it. A producer that failed for good is replaced: those who still have it keep it,
 * to the end of their session, and whoever connects gets another. */
struct client {
    struct kafka *kafka;
    rd_kafka_t *producer;
    unsigned users;
    size_t on_the_way; /* messages without a report */
    bool broken;
};

struct kafka { /* one per process */
    const struct outbox_host *host;
    const char *brokers, *topic;
    struct client *client;  /* for those who connect; NULL = none yet, or it is broken */
    pthread_mutex_t lock;   /* over it, and over everything below that the library's threads touch */
    pthread_cond_t changed; /* a report has come, or an interrupt */
};

struct session { /* one per worker thread */
    struct kafka *kafka;
    struct client *client;
    bool interrupted;
};

/*
 * What became of a batch. publish() may give up before every report has come, and the reports come all the
 * same: so it belongs to both, and the last one frees it. Nothing in it points into the batch, which is gone
 * by then.
 */
struct parcel {
    struct client *client;
    size_t holders; /* reports to come, and publish() */
    size_t reports; /* that have come, and publish() has not yet seen */
    struct fate {
        struct parcel *parcel;
        bool sent, reported, settled;
        rd_kafka_resp_err_t code;
    } fates[];
};

/* Under the lock. */
static void let_go(struct parcel *parcel)
{
    if (--parcel->holders == 0) {
        free(parcel);
    }
}

static int fail(struct outbox_error *error, enum outbox_error_kind kind, const char *why)
{
    error->kind = kind;
    (void)snprintf(error->text, sizeof error->text, "kafka: %s", why);
    return -1;
}

/* ---- events: in a thread of the library ---- */

static void on_report(struct kafka *kafka, const rd_kafka_message_t *message)
{
    struct fate *fate = message->_private;
    (void)pthread_mutex_lock(&kafka->lock);
    fate->reported = true;
    fate->code = message->err;
    fate->parcel->reports++;
    fate->parcel->client->on_the_way--;
    let_go(fate->parcel);
    (void)pthread_cond_broadcast(&kafka->changed);
    (void)pthread_mutex_unlock(&kafka->lock);
}

/* Only a fatal error is news: the library heals the others by itself. */
static void on_error(struct client *client, rd_kafka_resp_err_t code)
{
    struct kafka *kafka = client->kafka;
    if (code == RD_KAFKA_RESP_ERR__FATAL) {
        (void)pthread_mutex_lock(&kafka->lock);
        client->broken = true;
        kafka->client = kafka->client == client ? NULL : kafka->client;
        (void)pthread_cond_broadcast(&kafka->changed);
        (void)pthread_mutex_unlock(&kafka->lock);
    }
}

static void on_event(rd_kafka_t *producer, rd_kafka_event_t *event, void *object)
{
    struct client *client = object;
    const rd_kafka_message_t *message = NULL;
    (void)producer;
    while (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR &&
           (message = rd_kafka_event_message_next(event))) {
        on_report(client->kafka, message);
    }
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
        on_error(client, rd_kafka_event_error(event));
    }
    rd_kafka_event_destroy(event);
}

/* ---- time ---- */

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Until somebody has told something, or the deadline has passed; the lock is held. */
static bool wait_until(struct kafka *kafka, int64_t deadline_ms)
{
    const struct timespec until = {deadline_ms / 1000, (long)(deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&kafka->changed, &kafka->lock, &until) != ETIMEDOUT;
}

/* ---- the shared client ---- */

static void be_quiet(const rd_kafka_t *producer, int level, const char *facility, const char *text)
{
    (void)producer;
    (void)level;
    (void)facility;
    (void)text; /* it would write to standard error, which is the relay's */
}

static bool set(rd_kafka_conf_t *conf, const char *name, const char *value, char *why, size_t why_bytes)
{
    return rd_kafka_conf_set(conf, name, value, why, why_bytes) == RD_KAFKA_CONF_OK;
}

/* Everything that the application would have to poll for goes to the library's own thread, and on_event(). */
static void forward_events(rd_kafka_t *producer)
{
    rd_kafka_queue_t *from = rd_kafka_queue_get_main(producer);
    rd_kafka_queue_t *to = rd_kafka_queue_get_background(producer);
    rd_kafka_queue_forward(from, to);
    rd_kafka_queue_destroy(from);
    rd_kafka_queue_destroy(to);
}

static struct client *make_client(struct kafka *kafka, char *why, size_t why_bytes)
{
    struct client *client = calloc(1, sizeof *client);
    rd_kafka_conf_t *conf = client ? rd_kafka_conf_new() : NULL;
    if (!conf) {
        (void)snprintf(why, why_bytes, "out of memory");
        free(client);
        return NULL;
    }
    client->kafka = kafka;
    rd_kafka_conf_set_opaque(conf, client);
    rd_kafka_conf_set_log_cb(conf, be_quiet);
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    rd_kafka_conf_set_background_event_cb(conf, on_event);
    /* Idempotence keeps the order of a partition while the library tries again. */
    if (set(conf, "bootstrap.servers", kafka->brokers, why, why_bytes) &&
        set(conf, "client.id", kafka->host->client_name, why, why_bytes) &&
        set(conf, "enable.idempotence", "true", why, why_bytes) && set(conf, "acks", "all", why, why_bytes) &&
        set(conf, "linger.ms", "2", why, why_bytes) &&
        set(conf, "message.timeout.ms", "30000", why, why_bytes)) {
        client->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, why_bytes);
    }
    if (!client->producer) {
        rd_kafka_conf_destroy(conf); /* rd_kafka_new() takes it only where it succeeds */
        free(client);
        return NULL;
    }
    forward_events(client->producer);
    return client;
}

/* The producer is made with the first session, and not in open(), which is to do without the network. */
static struct client *join(struct kafka *kafka, char *why, size_t why_bytes)
{
    (void)pthread_mutex_lock(&kafka->lock);
    if (!kafka->client) {
        kafka->client = make_client(kafka, why, why_bytes);
    }
    struct client *client = kafka->client;
    if (client) {
        client->users++;
    }
    (void)pthread_mutex_unlock(&kafka->lock);
    return client;
}

/* The last one ends it: reports of what is on the way are fetched by purging it, as each holds memory. */
static void leave(struct kafka *kafka, struct client *client)
{
    int64_t deadline_ms = now_ms() + GOODBYE_MS;
    (void)pthread_mutex_lock(&kafka->lock);
    bool last = --client->users == 0;
    kafka->client = last && kafka->client == client ? NULL : kafka->client;
    (void)pthread_mutex_unlock(&kafka->lock);
    if (!last) {
        return;
    }
    (void)rd_kafka_purge(client->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    (void)pthread_mutex_lock(&kafka->lock);
    while (client->on_the_way > 0 && wait_until(kafka, deadline_ms)) {
    }
    (void)pthread_mutex_unlock(&kafka->lock);
    rd_kafka_destroy(client->producer);
    free(client);
}

/* ---- lives ---- */

static int kafka_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                      struct outbox_error *error)
{
    pthread_condattr_t monotonic;
    struct kafka *kafka = calloc(1, sizeof *kafka);
    if (!kafka) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    kafka->host = host;
    kafka->brokers = host->get_string(settings, "brokers");
    kafka->topic = host->get_string(settings, "topic");
    (void)pthread_mutex_init(&kafka->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic,
                                    CLOCK_MONOTONIC); /* the relay's deadlines are of that clock */
    (void)pthread_cond_init(&kafka->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    *backend = kafka;
    return 0;
}

static void kafka_close(void *backend)
{
    struct kafka *kafka = backend;
    (void)pthread_cond_destroy(&kafka->changed);
    (void)pthread_mutex_destroy(&kafka->lock);
    free(kafka);
}

static int kafka_session_new(void *backend, void **out, struct outbox_error *error)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->kafka = backend;
    *out = session;
    return 0;
}

static void kafka_disconnect(void *object)
{
    struct session *session = object;
    leave(session->kafka, session->client);
    session->client = NULL;
}

static bool is_interrupted(struct session *session)
{
    (void)pthread_mutex_lock(&session->kafka->lock);
    bool interrupted = session->interrupted;
    (void)pthread_mutex_unlock(&session->kafka->lock);
    return interrupted;
}

/* rd_kafka_new() only begins to connect; a broker that answers is seen by its metadata. The call cannot be
 * interrupted, so it is made in slices. */
static int kafka_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    const struct rd_kafka_metadata *metadata = NULL;
    char why[256] = "no broker answers";
    session->interrupted = false; /* nobody else is there yet */
    session->client = join(session->kafka, why, sizeof why);
    while (session->client && !metadata && now_ms() < deadline_ms && !is_interrupted(session)) {
        (void)rd_kafka_metadata(session->client->producer, 0, NULL, &metadata, SLICE_MS);
    }
    if (!metadata) {
        if (session->client) {
            kafka_disconnect(session);
        }
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, why);
    }
    rd_kafka_metadata_destroy(metadata);
    return 0;
}

/* ---- publish ---- */

static struct parcel *make_parcel(struct client *client, size_t count)
{
    struct parcel *parcel = calloc(1, sizeof *parcel + count * sizeof parcel->fates[0]);
    for (size_t at = 0; parcel && at < count; at++) {
        parcel->fates[at].parcel = parcel;
    }
    if (parcel) {
        parcel->client = client;
        parcel->holders = 1;
    }
    return parcel;
}

/* 0, or why it was not taken. The library copies key and payload. */
static rd_kafka_resp_err_t send_one(struct session *session, const struct outbox_message *message,
                                    struct parcel *parcel, struct fate *fate)
{
    char topic[TOPIC_BYTES];
    struct kafka *kafka = session->kafka;
    const char *key = message->key.len > 0 ? message->key.ptr : NULL;
    if (kafka->host->render(kafka->host, kafka->topic, message, topic, sizeof topic) <= 0) {
        return RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
    }
    (void)pthread_mutex_lock(&kafka->lock); /* before it is sent: its report may be quicker than we are */
    fate->sent = true;
    parcel->holders++;
    session->client->on_the_way++;
    (void)pthread_mutex_unlock(&kafka->lock);
    rd_kafka_resp_err_t code =
        rd_kafka_producev(session->client->producer, RD_KAFKA_V_TOPIC(topic),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, message->key.len),
                          RD_KAFKA_V_VALUE((void *)message->payload.ptr, message->payload.len),
                          RD_KAFKA_V_HEADER("outbox-id", message->id.ptr, (ssize_t)message->id.len),
                          RD_KAFKA_V_HEADER("outbox-type", message->type.ptr, (ssize_t)message->type.len),
                          RD_KAFKA_V_OPAQUE(fate), RD_KAFKA_V_END);
    if (code != RD_KAFKA_RESP_ERR_NO_ERROR) { /* no report will come */
        (void)pthread_mutex_lock(&kafka->lock);
        fate->sent = false;
        session->client->on_the_way--;
        parcel->holders--; /* publish() is one to the end */
        (void)pthread_mutex_unlock(&kafka->lock);
    }
    return code;
}

/* What a code says of a message: too large will never do; no answer in time says nothing; the rest is the
 * topic's or the cluster's. */
static void settle_one(struct outbox_batch *batch, size_t index, struct fate *fate)
{
    fate->settled = true;
    if (fate->code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        batch->settle(batch, index, OUTBOX_CONFIRMED, NULL, 0);
    } else if (fate->code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE ||
               fate->code == RD_KAFKA_RESP_ERR_INVALID_MSG) {
        batch->settle(batch, index, OUTBOX_REJECTED, rd_kafka_err2str(fate->code), 0);
    } else if (fate->code != RD_KAFKA_RESP_ERR__MSG_TIMED_OUT) {
        batch->settle(batch, index, OUTBOX_HOLD, rd_kafka_err2str(fate->code), 0);
    }
}

/* Settles what was reported; how many have no report. */
static size_t settle_reported(struct outbox_batch *batch, struct parcel *parcel, size_t count)
{
    size_t open = 0;
    parcel->reports = 0;
    for (size_t at = 0; at < count; at++) {
        struct fate *fate = &parcel->fates[at];
        if (fate->reported && !fate->settled) {
            settle_one(batch, at, fate);
        }
        open += fate->sent && !fate->reported;
    }
    return open;
}

/* Waits for a report; false if there is no more sense in it. Under the lock. */
static bool await_report(struct session *session, const struct parcel *parcel, int64_t deadline_ms)
{
    bool goes_on = true;
    while (goes_on && parcel->reports == 0) {
        goes_on =
            !session->interrupted && !session->client->broken && wait_until(session->kafka, deadline_ms);
    }
    return goes_on || parcel->reports > 0;
}

/* Sends all; where the library's queue is full, it waits for reports. False if it could not. */
static bool send_all(struct session *session, struct outbox_batch *batch, struct parcel *parcel,
                     int64_t deadline_ms)
{
    bool alive = true;
    const int64_t began_ms = now_ms();
    for (size_t at = 0; alive && at < batch->count;) {
        struct fate *fate = &parcel->fates[at];
        int64_t ttl_ms = batch->messages[at]->ttl_ms;
        if (ttl_ms >= 0 && now_ms() - began_ms >= ttl_ms) {
            fate->settled = true;
            batch->settle(batch, at++, OUTBOX_UNSETTLED, "it expired before it could be sent", 0);
            continue;
        }
        rd_kafka_resp_err_t code = send_one(session, batch->messages[at], parcel, fate);
        if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
            (void)pthread_mutex_lock(&session->kafka->lock);
            alive = await_report(session, parcel, deadline_ms);
            (void)settle_reported(batch, parcel, at);
            (void)pthread_mutex_unlock(&session->kafka->lock);
            continue;
        }
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
            fate->code = code;
            settle_one(batch, at, fate);
        }
        at++;
    }
    return alive;
}

static enum outbox_session_state kafka_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                               struct outbox_error *error)
{
    struct session *session = object;
    struct kafka *kafka = session->kafka;
    struct parcel *parcel = make_parcel(session->client, batch->count);
    if (!parcel) {
        (void)fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
        return OUTBOX_SESSION_LOST;
    }
    bool alive = send_all(session, batch, parcel, deadline_ms);
    (void)pthread_mutex_lock(&kafka->lock);
    size_t open = settle_reported(batch, parcel, batch->count);
    while (alive && open > 0) {
        alive = await_report(session, parcel, deadline_ms);
        open = settle_reported(batch, parcel, batch->count);
    }
    size_t unsettled = 0;
    for (size_t at = 0; at < batch->count; at++) {
        const struct fate *fate = &parcel->fates[at];
        unsettled += !fate->settled || fate->code == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
    }
    bool broken = session->client->broken; /* connect() makes another */
    let_go(parcel);
    (void)pthread_mutex_unlock(&kafka->lock);
    (void)fail(error, OUTBOX_ERROR_UNAVAILABLE,
               broken ? "the producer is broken" : "no report of delivery by the deadline");
    return alive && unsettled == 0 && !broken ? OUTBOX_SESSION_OK : OUTBOX_SESSION_LOST;
}

/* From another thread. */
static void kafka_interrupt(void *object)
{
    struct session *session = object;
    (void)pthread_mutex_lock(&session->kafka->lock);
    session->interrupted = true;
    (void)pthread_cond_broadcast(&session->kafka->changed);
    (void)pthread_mutex_unlock(&session->kafka->lock);
}

/* ---- the table ---- */

static void kafka_library(char *out, size_t out_bytes)
{
    (void)snprintf(out, out_bytes, "librdkafka %s", rd_kafka_version_str());
}

static const struct outbox_option options[] = {
    {"brokers", OUTBOX_OPT_STRING, 0, "127.0.0.1:9092", NULL, 0, 0, "HOST:PORT of brokers, with commas"},
    {"topic", OUTBOX_OPT_STRING, 0, "${channel}", NULL, 0, 0, "topic, a template"},
    {0},
};

static const struct outbox_backend table = {
    .size = sizeof(struct outbox_backend),
    .name = "kafka",
    .version = "0.1.0",
    .options = options,
    .open = kafka_open,
    .close = kafka_close,
    .session_new = kafka_session_new,
    .session_free = free,
    .connect = kafka_connect,
    .disconnect = kafka_disconnect,
    .publish = kafka_publish,
    .interrupt = kafka_interrupt,
    .library = kafka_library,
};

OUTBOX_BACKEND("kafka", "0.1.0", table);
