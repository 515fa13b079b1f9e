#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLICE_MS = 100 };

/* 0, or why not, as errno has it; ECANCELED when it was interrupted. */
static int await_connect(struct session *session, int fd, int64_t deadline_ms)
{
    struct pollfd socket = {.fd = fd, .events = POLLOUT};
    for (;;) {
        int64_t left_ms = deadline_ms - session_now_ms();
        int ready = poll(&socket, 1, left_ms < SLICE_MS ? (int)(left_ms > 0 ? left_ms : 0) : (int)SLICE_MS);
        int fault = 0;
        socklen_t size = sizeof fault;
        if (ready > 0) {
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &fault, &size) == 0 ? fault : errno;
        }
        if (ready < 0 && errno != EINTR) {
            return errno;
        }
        if (session_is_interrupted(session)) {
            return ECANCELED;
        }
        if (left_ms <= 0) {
            return ETIMEDOUT;
        }
    }
}

static int connect_one(struct session *session, const struct addrinfo *address, int64_t deadline_ms,
                       int *fault)
{
    int one = 1;
    int fd =
        socket(address->ai_family, address->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
    *fault = errno;
    if (fd < 0) {
        return -1;
    }
    *fault = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    *fault = *fault == EINPROGRESS ? await_connect(session, fd, deadline_ms) : *fault;
    if (*fault != 0) {
        (void)close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    return fd; /* non-blocking, as librabbitmq wants it */
}

int dial(struct session *session, const char *host, int port, int64_t deadline_ms, struct outbox_error *error)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    char service[16];
    (void)snprintf(service, sizeof service, "%d", port);
    int unknown = getaddrinfo(host, service, &hints, &addresses);
    if (unknown != 0) {
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot connect to %s:%d: %s", host, port,
                             unknown == EAI_SYSTEM ? strerror(errno) : gai_strerror(unknown));
    }
    int fd = -1;
    int fault = 0;
    int64_t count = 0;
    for (const struct addrinfo *at = addresses; at; at = at->ai_next) {
        count++;
    }
    for (const struct addrinfo *at = addresses; at && fd < 0 && fault != ECANCELED; at = at->ai_next) {
        int64_t now_ms = session_now_ms();
        fd = connect_one(session, at, now_ms + (deadline_ms - now_ms) / count--, &fault);
    }
    freeaddrinfo(addresses);
    return fd >= 0 ? fd
                   : session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot connect to %s:%d: %s", host, port,
                                   fault == ECANCELED ? "interrupted" : strerror(fault));
}
