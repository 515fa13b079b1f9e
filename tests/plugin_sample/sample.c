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
#include "wire.h"

/* ---- the table ---- */

static int sample_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                       struct outbox_error *error)
{
    static struct sample only;
    struct sample *sample = IS(HAS_ONE_SET_OF_SETTINGS) ? &only : calloc(1, sizeof *sample);
    if (!sample) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    sample->address = address_in(host, settings);
    sample->command = host->get_string(settings, "command");
    sample->password = host->get_string(settings, "password");
    sample->host = host;
    change_the_process();
    *backend = sample;
    return 0;
}

static void sample_close(void *backend)
{
    if (IS(HAS_ONE_SET_OF_SETTINGS)) {
        memset(backend, 0, sizeof(struct sample));
        return;
    }
    free(backend);
}

static int sample_session_new(void *backend, void **out, struct outbox_error *error)
{
    static struct session eight[8];
    static atomic_uint count;
    struct session *session =
        IS(HAS_EIGHT_SESSIONS) ? &eight[atomic_fetch_add(&count, 1) % 8] : calloc(1, sizeof *session);
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
    if (!IS(HAS_EIGHT_SESSIONS)) {
        free(session);
    }
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
    if (IS(LEAKS_MEMORY_ON_A_FAILED_CONNECT)) {
        *(char *volatile *)&session->buffer = malloc(64);
        session->buffer = NULL;
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
#ifdef CERTIFIED /* for that name alone, as with TLS */
    if (strcmp(host, CERTIFIED) != 0) {
        return fail(error, OUTBOX_ERROR_CONFIG, "the certificate is for another name");
    }
#endif
    if (IS(CANNOT_CONNECT_AGAIN) && session->was_connected) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "connect() a second time");
    }
    if (getaddrinfo(host, colon + 1, &hints, &found) != 0) {
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "the address cannot be resolved");
    }
    int result = connect_to(session, found, deadline_ms);
    while (IS(TRIES_AGAIN_DEAF_TO_INTERRUPTS) && result != 0 && left_ms(deadline_ms) > 600) {
        (void)usleep(500000);
        result = connect_to(session, found, deadline_ms);
    }
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
    if (IS(GREETS_WITH_A_TIMEOUT_PER_BYTE) && !is_greeted(atomic_load(&session->fd), &session->interrupted)) {
        (void)close(atomic_exchange(&session->fd, -1));
        return fail(error, OUTBOX_ERROR_UNAVAILABLE, "no greeting");
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
    char byte = 0;
    bool lives = recv(atomic_load(&session->fd), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
    enum outbox_verdict verdict = IS(HOLDS_FOR_A_DEAD_CONNECTION) || (IS(KEEPS_LATE_ANSWERS) && lives)
                                      ? OUTBOX_HOLD
                                  : IS(RETRIES_FOR_A_DEAD_CONNECTION) ? OUTBOX_RETRY
                                                                      : OUTBOX_UNSETTLED;
    if (IS(GIVES_A_DATE_FOR_A_WAIT)) {
        batch->settle(batch, at, OUTBOX_HOLD, "no answer", (int64_t)time(NULL) * 1000);
    } else if (IS(REJECTS_IN_AN_OUTAGE)) {
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
    if (IS(CLOSES_TWICE)) {
        (void)close(atomic_load(&session->fd));
    }
    (void)fail(error, IS(CALLS_AN_OUTAGE_A_MISTAKE) ? OUTBOX_ERROR_CONFIG : OUTBOX_ERROR_UNAVAILABLE,
               "no answer");
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
        if (is_too_much(batch->messages[at])) {
            (void)fail(error, OUTBOX_ERROR_UNAVAILABLE, "no answer");
            return OUTBOX_SESSION_LOST;
        }
        if (batch->messages[at]->ttl_ms == 0 && !IS(SENDS_WHAT_HAS_EXPIRED)) {
            batch->settle(batch, at, OUTBOX_UNSETTLED, "it has expired", 0);
        } else if (IS(SAYS_OK_AND_SENDS_NOTHING)) {
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
    if (IS(PINGS_AND_DOES_NOT_READ) &&
        send(atomic_load(&session->fd), "SET ping 1\r\n", 12, MSG_NOSIGNAL) > 0) {
        return OUTBOX_SESSION_OK;
    }
    if (IS(CHECKS_DEAF_TO_INTERRUPTS)) {
        struct pollfd fd = {.fd = -1};
        (void)poll(&fd, 1, (int)left_ms(deadline_ms) - 100);
    }
    ssize_t got = recv(atomic_load(&session->fd), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (IS(CHECKS_NOTHING) || (got == 0 && IS(CHECKS_FOR_A_RESET_ONLY)) || (got < 0 && errno == EAGAIN)) {
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

static const struct outbox_option options[] = {
#ifdef HOST_AND_PORT
    {"host", OUTBOX_OPT_STRING, OUTBOX_OPT_REQUIRED, NULL, NULL, 0, 0, "of a Redis"},
    {"port", OUTBOX_OPT_INT, 0, "6379", NULL, 1, 65535, "its port"},
#else
    {"address", OUTBOX_OPT_STRING, OUTBOX_OPT_REQUIRED, NULL, NULL, 0, 0, "HOST:PORT of a Redis"},
#endif
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
