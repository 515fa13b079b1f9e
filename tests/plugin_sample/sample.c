/*
 * sample - a small backend that keeps the contract (it SETs each payload in a Redis), and with -DWRONG=...
 * one that breaks it in a single place. tests/contract/test_kit.py builds them all and demands that the kit
 * tells which is which, and why.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <outbox_backend.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "misdeeds.h"

struct sample {
    const char *address;
    const char *command;
    const char *password;
    const struct outbox_host *host;
};

struct session {
    const struct sample *sample;
    atomic_int fd;
    atomic_bool interrupted;
    bool was_connected;
    bool lost;
    struct outbox_bytes kept;
    char *buffer;
};

static int64_t left_ms(int64_t deadline_ms)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t left = deadline_ms - ((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    return left > 0 ? left : 0;
}

static int fail(struct outbox_error *error, enum outbox_error_kind kind, const char *text)
{
    error->kind = kind;
    if (!IS(GIVES_NO_ERROR_TEXT)) {
        (void)snprintf(error->text, sizeof error->text, "sample: %s", text);
    }
    return -1;
}

/* ---- the wire ---- */

static bool ready(struct session *session, short events, int64_t deadline_ms)
{
    struct pollfd fd = {.fd = atomic_load(&session->fd), .events = events};
    int64_t wait_ms = IS(IGNORES_THE_DEADLINE)        ? 60000
                      : IS(HAS_A_TIMEOUT_PER_MESSAGE) ? 1400
                                                      : left_ms(deadline_ms);
    return poll(&fd, 1, (int)wait_ms) == 1 &&
           (IS(IGNORES_THE_INTERRUPT) || !atomic_load(&session->interrupted));
}

static bool send_all(struct session *session, const char *bytes, size_t len, int64_t deadline_ms)
{
    while (len > 0) {
        ssize_t sent = ready(session, POLLOUT, deadline_ms)
                           ? send(atomic_load(&session->fd), bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT)
                           : -1;
        if (IS(CONFIRMS_ON_A_WRITE_ERROR)) {
            return true;
        }
        if (sent < 0) {
            return false;
        }
        bytes += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* "+OK\r\n", and nothing else is an answer. */
static bool is_answered(struct session *session, int64_t deadline_ms)
{
    char answer[6] = "";
    size_t len = 0;
    if (IS(CONFIRMS_WITHOUT_AN_ANSWER) || IS(CONFIRMS_ON_A_WRITE_ERROR)) {
        return true;
    }
    while (len < 5) {
        ssize_t got = ready(session, POLLIN, deadline_ms)
                          ? recv(atomic_load(&session->fd), answer + len, 5 - len, MSG_DONTWAIT)
                          : -1;
        if (got <= 0) {
            return false;
        }
        len += (size_t)got;
        if (IS(CONFIRMS_ON_ANY_ANSWER)) {
            return true;
        }
    }
    if (IS(TAKES_AN_ERROR_FOR_AN_ANSWER) && answer[0] == '-') {
        while (answer[0] != '\n' && recv(atomic_load(&session->fd), answer, 1, 0) == 1) {
        }
        return true;
    }
    return memcmp(answer, "+OK\r\n", 5) == 0;
}

/* All of it through one buffer, whoever else is at it. */
static bool send_shared(struct session *session, const struct outbox_message *message, int64_t deadline_ms)
{
    static char buffer[32 << 20];
    int head_len = snprintf(buffer, 128, "*3\r\n$3\r\nSET\r\n$6\r\nsample\r\n$%zu\r\n", message->payload.len);
    memcpy(buffer + head_len, message->payload.ptr, message->payload.len);
    memcpy(buffer + head_len + message->payload.len, "\r\n", 2);
    return send_all(session, buffer, (size_t)head_len + message->payload.len + 2, deadline_ms) &&
           is_answered(session, deadline_ms);
}

static bool send_message(struct session *session, const struct outbox_message *message, int64_t deadline_ms)
{
    char head[128];
    const char *command = session->sample->command;
    size_t len = IS(TRUNCATES_AT_NUL) ? strlen(message->payload.ptr) : message->payload.len;
    len = IS(CUTS_LARGE_PAYLOADS) && len > 4096 ? 4096 : len;
    int head_len = snprintf(head, sizeof head, "*3\r\n$%zu\r\n%s\r\n$6\r\nsample\r\n$%zu\r\n",
                            strlen(command), command, len);
    if (IS(SHARES_ITS_BUFFER)) {
        return send_shared(session, message, deadline_ms);
    }
    return send_all(session, head, (size_t)head_len, deadline_ms) &&
           send_all(session, message->payload.ptr, len, deadline_ms) &&
           send_all(session, "\r\n", 2, deadline_ms) && is_answered(session, deadline_ms);
}

/* ---- the table ---- */

static int sample_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                       struct outbox_error *error)
{
    struct sample *sample = calloc(1, sizeof *sample);
    if (!sample) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    sample->address = host->get_string(settings, "address");
    sample->command = host->get_string(settings, "command");
    sample->password = host->get_string(settings, "password");
    sample->host = host;
    change_the_process();
    *backend = sample;
    return 0;
}

static void sample_close(void *backend)
{
    free(backend);
}

static int sample_session_new(void *backend, void **out, struct outbox_error *error)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->sample = backend;
    atomic_store(&session->fd, -1);
    *out = session;
    return 0;
}

static void sample_session_free(void *object)
{
    struct session *session = object;
    if (IS(FREES_NOT_WITHOUT_CONNECT) && !session->was_connected) {
        abort();
    }
    if (IS(KEEPS_ITS_CONNECTION)) {
        (void)close(atomic_load(&session->fd));
    }
    free(session->buffer);
    free(session);
}

/* One for all of them, as if it were safe. */
static atomic_int shared_fd = -1;

static int connect_to(struct session *session, const struct addrinfo *address, int64_t deadline_ms)
{
    const int on = 1;
    int status = 0;
    socklen_t len = sizeof status;
    if (IS(SHARES_ONE_CONNECTION) && atomic_load(&shared_fd) >= 0) {
        atomic_store(&session->fd, atomic_load(&shared_fd));
        return 0;
    }
    int fd = socket(address->ai_family,
                    SOCK_STREAM | SOCK_CLOEXEC | (IS(BLOCKS_IN_CONNECT) ? 0 : SOCK_NONBLOCK), 0);
    atomic_store(&shared_fd, fd);
    atomic_store(&session->fd, fd);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd >= 0 && (connect(fd, address->ai_addr, address->ai_addrlen) == 0 ||
                    (errno == EINPROGRESS && ready(session, POLLOUT, deadline_ms) &&
                     getsockopt(fd, SOL_SOCKET, SO_ERROR, &status, &len) == 0 && status == 0))) {
        return 0;
    }
    if (fd >= 0 && !IS(LEAKS_ON_A_FAILED_CONNECT)) {
        (void)close(fd);
    }
    atomic_store(&session->fd, -1);
    return -1;
}

static int sample_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    char host[256];
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    atomic_store(&session->interrupted, false);
    (void)snprintf(host, sizeof host, "%s", session->sample->address);
    char *colon = strrchr(host, ':');
    if (IS(KEEPS_ITS_CONNECTION) && atomic_load(&session->fd) >= 0) {
        return 0;
    }
    if (!colon) {
        return fail(error, OUTBOX_ERROR_CONFIG, "option 'address' is not HOST:PORT");
    }
    *colon = '\0';
    if (IS(CANNOT_CONNECT_AGAIN) && session->was_connected) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "connect() a second time");
    }
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "the address cannot be resolved");
    }
    int result = connect_to(session, found, deadline_ms);
#ifdef ADVERTISED /* the first address only tells where the broker really is */
    if (result == 0) {
        (void)close(atomic_exchange(&session->fd, -1));
        (void)snprintf(host, sizeof host, "%s", ADVERTISED);
        freeaddrinfo(found);
        host[strcspn(host, ":")] = '\0';
        if (getaddrinfo(host, strchr(ADVERTISED, ':') + 1, &hints, &found) != 0) {
            return fail(error, OUTBOX_ERROR_UNAVAILABLE, "the broker's address cannot be resolved");
        }
        result = connect_to(session, found, deadline_ms);
    }
#endif
    freeaddrinfo(found);
    if (IS(LOGS_A_SECRET) && session->sample->password) {
        session->sample->host->log(session->sample->host, OUTBOX_LOG_DEBUG, session->sample->password);
    }
    if (result != 0 || (IS(TELLS_A_SECRET) && session->sample->password)) {
        char text[256];
        (void)snprintf(text, sizeof text, "cannot connect%s%s", IS(TELLS_A_SECRET) ? " with password " : "",
                       IS(TELLS_A_SECRET) && session->sample->password ? session->sample->password : "");
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, text);
    }
    session->was_connected = true;
    return 0;
}

static void sample_disconnect(void *object)
{
    struct session *session = object;
    pthread_t thread;
    if (IS(KEEPS_ITS_CONNECTION)) {
        return;
    }
    int fd = atomic_exchange(&session->fd, -1);
    atomic_store(&shared_fd, -1);
    if (IS(LEAKS_MEMORY_WHEN_LOST) && session->lost) {
        *(char *volatile *)&session->buffer = malloc(64);
        session->buffer = NULL;
    }
    if (!IS(LEAKS_A_DESCRIPTOR) && !(IS(LEAKS_A_DESCRIPTOR_WHEN_LOST) && session->lost)) {
        (void)close(fd);
    }
    session->lost = false;
    if (IS(SLEEPS_IN_DISCONNECT)) {
        (void)usleep(2500000);
    }
    if (IS(LEAKS_A_THREAD) && pthread_create(&thread, NULL, live_on, NULL) == 0) {
        (void)pthread_detach(thread);
    }
    if (IS(LEAKS_MEMORY)) {
        *(char *volatile *)&session->buffer = malloc(64);
        session->buffer = NULL;
    }
}

/* Misdeeds in front of a message. */
static void misbehave(struct session *session, struct outbox_batch *batch, size_t at)
{
    const struct outbox_message *message = batch->messages[at];
    volatile char sink = 0;
    if (IS(CRASHES_ON_AN_EMPTY_PAYLOAD) && message->payload.len == 0) {
        abort();
    }
    if (IS(READS_BEYOND_THE_END)) {
        sink = message->channel.ptr[message->channel.len];
    }
    if (IS(READS_AFTER_RETURN) && session->kept.ptr) {
        sink = session->kept.ptr[0];
    }
    if (IS(WRITES_INTO_THE_MESSAGE)) {
        *(char *)(uintptr_t)message->channel.ptr = 'K';
    }
    if (IS(EXITS)) {
        exit(3);
    }
    if (IS(PRINTS_THE_PAYLOAD)) {
        (void)fprintf(stderr, "sample: sending %.*s\n",
                      (int)(message->payload.len < 200 ? message->payload.len : 200), message->payload.ptr);
    }
    (void)sink;
    session->kept = message->channel;
}

/* No answer came: what some make of it, in place of LOST. */
static enum outbox_session_state give_up(struct session *session, struct outbox_batch *batch, size_t at,
                                         struct outbox_error *error)
{
    enum outbox_verdict verdict = IS(HOLDS_FOR_A_DEAD_CONNECTION)     ? OUTBOX_HOLD
                                  : IS(RETRIES_FOR_A_DEAD_CONNECTION) ? OUTBOX_RETRY
                                                                      : OUTBOX_UNSETTLED;
    if (IS(REJECTS_IN_AN_OUTAGE)) {
        batch->settle(batch, at, OUTBOX_REJECTED, "no answer", 0);
    } else if (IS(SAYS_UNSENT_OF_WHAT_WENT)) {
        batch->settle(batch, at, OUTBOX_UNSETTLED, "not sent", 0);
    } else if (IS(QUOTES_THE_PAYLOAD)) {
        batch->settle(batch, at, OUTBOX_RETRY, batch->messages[at]->payload.ptr, 0);
    } else if (IS(CONFIRMS_THE_SECOND_ATTEMPT)) {
        for (; at < batch->count; at++) {
            if (batch->messages[at]->attempt > 1) {
                batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
            }
        }
    } else if (verdict != OUTBOX_UNSETTLED) {
        for (; at < batch->count; at++) {
            batch->settle(batch, at, verdict, "no answer", 0);
        }
        return OUTBOX_SESSION_OK;
    }
    session->lost = true;
    (void)fail(error, OUTBOX_ERROR_UNAVAILABLE, "no answer");
    return OUTBOX_SESSION_LOST;
}

/* As if what was sent before had arrived. */
static bool goes_on_with_another(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    if (!IS(RECONNECTS_WITHIN_PUBLISH) || atomic_load(&session->interrupted)) {
        return false;
    }
    (void)close(atomic_exchange(&session->fd, -1));
    return sample_connect(session, deadline_ms, error) == 0;
}

static enum outbox_session_state sample_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                                struct outbox_error *error)
{
    struct session *session = object;
    while (IS(SLEEPS_FOR_EVER)) {
        (void)pause();
    }
    if (IS(CRASHES_ON_AN_EMPTY_BATCH) && batch->messages[0]->size == 0) {
        return OUTBOX_SESSION_LOST;
    }
    for (size_t at = 0; at < batch->count; at++) {
        misbehave(session, batch, at);
        if (IS(SAYS_OK_AND_SENDS_NOTHING)) {
            batch->settle(batch, at, OUTBOX_UNSETTLED, "not today", 0);
        } else if ((IS(SETTLES_AFTER_RETURN) && at + 1 == batch->count) || IS(SETTLES_IN_ANOTHER_THREAD)) {
            settle_in_thread(batch, at, IS(SETTLES_AFTER_RETURN) ? 50 : 0);
        } else if (is_confirmed_unsent(batch->messages[at]) ||
                   send_message(session, batch->messages[at], deadline_ms) ||
                   goes_on_with_another(session, deadline_ms, error)) {
            if (IS(GIVES_NO_REASON)) {
                batch->settle(batch, at, OUTBOX_RETRY, NULL, 0);
            } else if (!IS(SAYS_OK_AND_SETTLES_NOTHING)) {
                batch->settle(batch, found_by_id(batch, at), OUTBOX_CONFIRMED, NULL, 0);
            }
        } else {
            return give_up(session, batch, at, error);
        }
        if (IS(SETTLES_TWICE)) {
            batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
        }
    }
    return IS(SAYS_AN_UNKNOWN_STATE) ? (enum outbox_session_state)7 : OUTBOX_SESSION_OK;
}

static enum outbox_session_state sample_check(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    char byte = 0;
    ssize_t got = recv(atomic_load(&session->fd), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    (void)deadline_ms;
    if (IS(CHECKS_NOTHING) || (got < 0 && errno == EAGAIN)) {
        return OUTBOX_SESSION_OK;
    }
    session->lost = true;
    (void)fail(error, OUTBOX_ERROR_UNAVAILABLE, "the connection has ended");
    return OUTBOX_SESSION_LOST;
}

static int sample_explain(void *backend, const struct outbox_message *message, char *out, size_t out_bytes,
                          struct outbox_error *error)
{
    (void)backend;
    (void)message;
    (void)error;
    (void)snprintf(out, IS(EXPLAINS_BEYOND_THE_END) ? 64 : out_bytes, "key sample of the Redis");
    return 0;
}

static void sample_interrupt(void *object)
{
    struct session *session = object;
    if (IS(INTERRUPTS_SLOWLY)) {
        (void)sleep(3);
    }
    if (!IS(IGNORES_THE_INTERRUPT)) {
        atomic_store(&session->interrupted, true);
        (void)shutdown(atomic_load(&session->fd), SHUT_RDWR);
    }
}

#ifdef TRACE /* would show that code of ours ran before the relay had looked at the note */
__attribute__((constructor)) static void leave_a_trace(void)
{
    FILE *file = fopen(TRACE, "w");
    if (file) {
        (void)fclose(file);
    }
}
#endif

static const struct outbox_option options[] = {
    {"address", OUTBOX_OPT_STRING, OUTBOX_OPT_REQUIRED, NULL, NULL, 0, 0, "HOST:PORT of a Redis"},
    {"password", OUTBOX_OPT_STRING, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0,
     "not used: to see that it is never shown"},
    {"command", OUTBOX_OPT_STRING, 0, "SET", NULL, 0, 0, "the command; another one is refused"},
    {"window", OUTBOX_OPT_INT, 0, "10", NULL, 1, 100, "not used: to see bounds"},
    {0},
};

static const struct outbox_backend table = {
    .size = sizeof(struct outbox_backend),
    .name = "sample",
    .version = "1.0.0",
    .options = options,
    .open = sample_open,
    .close = sample_close,
    .session_new = sample_session_new,
    .session_free = sample_session_free,
    .connect = sample_connect,
    .disconnect = sample_disconnect,
#ifndef WITHOUT_PUBLISH
    .publish = sample_publish,
#endif
    .interrupt = sample_interrupt,
    .check = sample_check,
    .explain = sample_explain,
};

#ifdef ENTRY_MISSING
const struct outbox_backend *unused_entry(void);
const struct outbox_backend *unused_entry(void)
{
    return &table;
}
#else
OUTBOX_BACKEND("sample", "1.0.0", table);
#endif
