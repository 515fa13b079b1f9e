/*
 * redis - Redis Streams: each message becomes an entry of stream ${channel}. The tutorial of
 * backends/README.md.
 *
 * CONFIRMED means that Redis answered the XADD with the entry's id. How much that is worth when the server
 * dies is for its appendfsync and its replicas to say.
 */
#define _POSIX_C_SOURCE 200809L
#include <hiredis/hiredis.h>
#include <outbox_backend.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { WINDOW = 500, WINDOW_BYTES = 4 << 20, FIELDS = 13 };

struct redis { /* one per process */
    const struct outbox_host *host;
    const char *address, *password, *stream;
};

struct session { /* one per worker thread */
    const struct redis *redis;
    redisContext *context;
    atomic_int fd; /* for interrupt(), which comes from another thread */
};

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t left_ms(int64_t deadline_ms)
{
    int64_t ms = deadline_ms - now_ms();
    return ms > 0 ? ms : 0;
}

static int fail(struct outbox_error *error, enum outbox_error_kind kind, const char *why)
{
    error->kind = kind;
    (void)snprintf(error->text, sizeof error->text, "redis: %s", why);
    return -1;
}

static int redis_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                      struct outbox_error *error)
{
    struct redis *redis = calloc(1, sizeof *redis);
    if (!redis) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    *redis = (struct redis){host, host->get_string(settings, "address"),
                            host->get_string(settings, "password"), host->get_string(settings, "stream")};
    *backend = redis;
    return 0;
}

static int redis_session_new(void *backend, void **out, struct outbox_error *error)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->redis = backend;
    atomic_store(&session->fd, -1);
    *out = session;
    return 0;
}

static void redis_disconnect(void *object)
{
    struct session *session = object;
    atomic_store(&session->fd, -1);
    redisFree(session->context);
    session->context = NULL;
}

/*
 * The next answer, which is the caller's to free; NULL if none came by the deadline. hiredis works on a
 * socket that never blocks, and all waiting is done here: however slowly bytes drip, the deadline holds.
 */
static redisReply *answer(struct session *session, int64_t deadline_ms)
{
    redisContext *context = session->context;
    void *reply = NULL;
    int written = 0;
    while (redisGetReplyFromReader(context, &reply) == REDIS_OK && !reply) {
        struct pollfd wire = {.fd = context->fd, .events = POLLIN};
        if (!written && redisBufferWrite(context, &written) != REDIS_OK) {
            return NULL;
        }
        wire.events = written ? POLLIN : POLLIN | POLLOUT;
        if (poll(&wire, 1, (int)left_ms(deadline_ms)) != 1) {
            (void)snprintf(context->errstr, sizeof context->errstr, "no answer by the deadline");
            return NULL;
        }
        if ((wire.revents & ~POLLOUT) && redisBufferRead(context) != REDIS_OK) {
            return NULL;
        }
    }
    return reply;
}

/* A server that starts, or a replica without its master, refuses nobody: it is not ready. */
static enum outbox_error_kind kind_of(const char *reply)
{
    bool later = strncmp(reply, "LOADING", 7) == 0 || strncmp(reply, "MASTERDOWN", 10) == 0;
    return later ? OUTBOX_ERROR_UNAVAILABLE : OUTBOX_ERROR_REFUSED;
}

/* AUTH or PING: a TCP connection alone proves nothing. */
static int greet(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    const char *words[] = {session->redis->password ? "AUTH" : "PING", session->redis->password};
    (void)redisAppendCommandArgv(session->context, words[1] ? 2 : 1, words, NULL);
    redisReply *reply = answer(session, deadline_ms);
    int result = !reply ? fail(error, OUTBOX_ERROR_UNAVAILABLE, session->context->errstr)
                 : reply->type == REDIS_REPLY_ERROR ? fail(error, kind_of(reply->str), reply->str)
                                                    : 0;
    freeReplyObject(reply);
    return result;
}

static int redis_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    char host[256];
    const char *colon = strrchr(session->redis->address, ':');
    if (!colon || (size_t)(colon - session->redis->address) >= sizeof host) {
        return fail(error, OUTBOX_ERROR_CONFIG, "option 'address' is not HOST:PORT");
    }
    (void)snprintf(host, sizeof host, "%.*s", (int)(colon - session->redis->address),
                   session->redis->address);
    session->context = redisConnectNonBlock(host, (int)strtol(colon + 1, NULL, 10));
    if (!session->context || session->context->err) {
        (void)fail(error, OUTBOX_ERROR_UNAVAILABLE,
                   session->context ? session->context->errstr : "out of memory");
        redis_disconnect(session);
        return -1;
    }
    atomic_store(&session->fd, session->context->fd);
    if (greet(session, deadline_ms, error) != 0) {
        redis_disconnect(session);
        return -1;
    }
    return 0;
}

/* XADD stream * id ... type ... payload ..., into hiredis's buffer; binary-safe. False if the stream has no
 * name. Where memory is short, hiredis says so when the answer is waited for. */
static bool append(struct session *session, const struct outbox_message *message)
{
    char stream[512];
    const struct redis *redis = session->redis;
    int len = redis->host->render(redis->host, redis->stream, message, stream, sizeof stream);
    const struct outbox_bytes fields[FIELDS] = {
        {"XADD", 4},           {stream, (size_t)len}, {"*", 1},         {"id", 2},    message->id,
        {"type", 4},           message->type,         {"key", 3},       message->key, {"content_type", 12},
        message->content_type, {"payload", 7},        message->payload,
    };
    const char *texts[FIELDS];
    size_t lengths[FIELDS];
    for (size_t at = 0; at < FIELDS; at++) {
        texts[at] = fields[at].len > 0 ? fields[at].ptr : "";
        lengths[at] = fields[at].len;
    }
    if (len > 0) {
        (void)redisAppendCommandArgv(session->context, FIELDS, texts, lengths);
    }
    return len > 0;
}

/* Whether it is on its way; if not, it has its verdict. */
static bool send_one(struct session *session, struct outbox_batch *batch, size_t index, int64_t began_ms)
{
    const struct outbox_message *message = batch->messages[index];
    bool expired = message->ttl_ms >= 0 && now_ms() - began_ms >= message->ttl_ms;
    bool sent = !expired && append(session, message);
    if (expired) {
        batch->settle(batch, index, OUTBOX_UNSETTLED, "it expired before it could be sent", 0);
    } else if (!sent) {
        batch->settle(batch, index, OUTBOX_REJECTED, "option 'stream' makes no name of this message", 0);
    }
    return sent;
}

/* Out of memory, read-only, loading, a key of another type: the destination's fault, not the message's. */
static void settle(struct outbox_batch *batch, size_t index, const redisReply *reply)
{
    bool confirmed = reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS;
    const char *why = reply->type == REDIS_REPLY_ERROR ? reply->str : "no id came back";
    batch->settle(batch, index, confirmed ? OUTBOX_CONFIRMED : OUTBOX_HOLD, confirmed ? NULL : why, 0);
}

/* So many messages go out before their answers are read: enough to keep the line busy, and not more than a
 * buffer should hold. */
static size_t end_of_window(const struct outbox_batch *batch, size_t from)
{
    size_t bytes = 0;
    size_t to = from;
    while (to < batch->count && to - from < WINDOW && bytes < WINDOW_BYTES) {
        bytes += batch->messages[to++]->payload.len;
    }
    return to;
}

static enum outbox_session_state redis_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                               struct outbox_error *error)
{
    struct session *session = object;
    const int64_t began_ms = now_ms();
    for (size_t from = 0, to = 0; from < batch->count; from = to) {
        to = end_of_window(batch, from);
        bool sent[WINDOW];
        for (size_t at = from; at < to; at++) {
            sent[at - from] = send_one(session, batch, at, began_ms);
        }
        for (size_t at = from; at < to; at++) {
            redisReply *reply = sent[at - from] ? answer(session, deadline_ms) : NULL;
            if (sent[at - from] && !reply) { /* whoever has no answer stays unsettled */
                (void)fail(error, OUTBOX_ERROR_UNAVAILABLE, session->context->errstr);
                return OUTBOX_SESSION_LOST;
            }
            if (reply) {
                settle(batch, at, reply);
                freeReplyObject(reply);
            }
        }
    }
    return OUTBOX_SESSION_OK;
}

static void redis_interrupt(void *object)
{
    int fd = atomic_load(&((struct session *)object)->fd);
    if (fd >= 0) {
        (void)shutdown(fd, SHUT_RDWR); /* whoever waits on it is woken, and finds the connection closed */
    }
}

static const struct outbox_option options[] = {
    {"address", OUTBOX_OPT_STRING, 0, "127.0.0.1:6379", NULL, 0, 0, "HOST:PORT of the server"},
    {"password", OUTBOX_OPT_STRING, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0, "for AUTH"},
    {"stream", OUTBOX_OPT_STRING, 0, "${channel}", NULL, 0, 0, "name of the stream, a template"},
    {0},
};

static const struct outbox_backend table = {
    .size = sizeof(struct outbox_backend),
    .name = "redis",
    .version = "0.1.0",
    .options = options,
    .open = redis_open,
    .close = free,
    .session_new = redis_session_new,
    .session_free = free,
    .connect = redis_connect,
    .disconnect = redis_disconnect,
    .publish = redis_publish,
    .interrupt = redis_interrupt,
};

OUTBOX_BACKEND("redis", "0.1.0", table);
