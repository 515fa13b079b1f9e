/* wire - the sample's session, and what it says to its Redis and hears of it. */
#ifndef WIRE_H
#define WIRE_H

#include <errno.h>
#include <outbox_backend.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

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
    const char *name = name_for(message);
    size_t len = IS(TRUNCATES_AT_NUL) ? strlen(message->payload.ptr) : message->payload.len;
    len = IS(CUTS_LARGE_PAYLOADS) && len > 4096 ? 4096 : IS(CUTS_AT_64_KIB) ? len & 0xffff : len;
    int head_len = snprintf(head, sizeof head, "*3\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(command),
                            command, strlen(name), name, len);
    if (IS(SHARES_ITS_BUFFER)) {
        return send_shared(session, message, deadline_ms);
    }
    return send_all(session, head, (size_t)head_len, deadline_ms) &&
           send_all(session, message->payload.ptr, len, deadline_ms) &&
           send_all(session, "\r\n", 2, deadline_ms) && is_answered(session, deadline_ms);
}

#endif
