#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SLICE_MS = 100 };

/* ---- the name ---- */

/* getaddrinfo(3) has no deadline, and with a name server that says nothing it takes half a minute: it waits
 * in a thread of its own, that who asked may leave behind. The last of the two frees. */
struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    int owners;
    bool done;
    int result; /* as getaddrinfo() has it */
    int fault;  /* errno with it */
    struct addrinfo *addresses;
    char service[16];
    char host[];
};

static void release(struct lookup *lookup)
{
    (void)pthread_mutex_lock(&lookup->lock);
    bool last = --lookup->owners == 0;
    (void)pthread_mutex_unlock(&lookup->lock);
    if (last) {
        if (lookup->addresses) {
            freeaddrinfo(lookup->addresses);
        }
        (void)pthread_cond_destroy(&lookup->answered);
        (void)pthread_mutex_destroy(&lookup->lock);
        free(lookup);
    }
}

static void *look_up(void *context)
{
    struct lookup *lookup = context;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    int result = getaddrinfo(lookup->host, lookup->service, &hints, &addresses);
    int fault = errno;
    (void)pthread_mutex_lock(&lookup->lock);
    lookup->result = result;
    lookup->fault = fault;
    lookup->addresses = result == 0 ? addresses : NULL;
    lookup->done = true;
    (void)pthread_cond_signal(&lookup->answered);
    (void)pthread_mutex_unlock(&lookup->lock);
    release(lookup);
    return NULL;
}

static struct lookup *new_lookup(const char *host, int port)
{
    struct lookup *lookup = calloc(1, sizeof *lookup + strlen(host) + 1);
    pthread_condattr_t monotonic;
    if (!lookup) {
        return NULL;
    }
    memcpy(lookup->host, host, strlen(host) + 1);
    (void)snprintf(lookup->service, sizeof lookup->service, "%d", port);
    (void)pthread_mutex_init(&lookup->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&lookup->answered, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    return lookup;
}

/* An address needs no name server. */
static bool is_address(struct lookup *lookup)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    lookup->owners = 1;
    lookup->done = getaddrinfo(lookup->host, lookup->service, &hints, &lookup->addresses) == 0;
    return lookup->done;
}

/* Signals are for the host's threads. 0, or why not, as errno has it. */
static int start(struct lookup *lookup)
{
    pthread_attr_t detached;
    pthread_t thread;
    sigset_t all;
    sigset_t before;
    (void)pthread_attr_init(&detached);
    (void)pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    lookup->owners = 2;
    int fault = pthread_create(&thread, &detached, look_up, lookup);
    lookup->owners = fault == 0 ? lookup->owners : 1;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&detached);
    return fault;
}

static struct timespec after_slice(void)
{
    int64_t at_ms = session_now_ms() + SLICE_MS;
    return (struct timespec){.tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000};
}

/* NULL when there is an answer, or what is told instead. */
static const char *await_answer(struct session *session, struct lookup *lookup, int64_t deadline_ms)
{
    const char *instead = NULL;
    (void)pthread_mutex_lock(&lookup->lock);
    while (!lookup->done && !instead) {
        struct timespec until = after_slice();
        (void)pthread_cond_timedwait(&lookup->answered, &lookup->lock, &until);
        instead = session_is_interrupted(session)   ? "interrupted while its name was looked up"
                  : session_now_ms() >= deadline_ms ? "no name server answered in time"
                                                    : NULL;
    }
    instead = lookup->done ? NULL : instead;
    (void)pthread_mutex_unlock(&lookup->lock);
    return instead;
}

/* Who has got one without an error releases it. */
static struct lookup *resolve(struct session *session, const char *host, int port, int64_t deadline_ms,
                              struct outbox_error *error)
{
    struct lookup *lookup = new_lookup(host, port);
    int fault = !lookup ? ENOMEM : is_address(lookup) ? 0 : start(lookup);
    const char *why = fault != 0 ? strerror(fault) : await_answer(session, lookup, deadline_ms);
    if (!why && lookup->result != 0) {
        why = lookup->result == EAI_SYSTEM ? strerror(lookup->fault) : gai_strerror(lookup->result);
    }
    if (why) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot connect to %s:%d: %s", host, port, why);
        if (lookup) {
            release(lookup);
        }
        return NULL;
    }
    return lookup;
}

int dial_knows(struct session *session, const char *host, int port, int64_t deadline_ms,
               struct outbox_error *error)
{
    struct lookup *lookup = resolve(session, host, port, deadline_ms, error);
    if (lookup) {
        release(lookup);
    }
    return lookup ? 0 : -1;
}

/* ---- the connection ---- */

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
    struct lookup *lookup = resolve(session, host, port, deadline_ms, error);
    if (!lookup) {
        return -1;
    }
    const struct addrinfo *addresses = lookup->addresses;
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
    release(lookup);
    return fd >= 0 ? fd
                   : session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot connect to %s:%d: %s", host, port,
                                   fault == ECANCELED ? "interrupted" : strerror(fault));
}

bool dial_stays_here(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer = {0};
    socklen_t len = sizeof peer;
    if (getpeername(fd, &peer.any, &len) != 0) {
        return false;
    }
    if (peer.any.sa_family == AF_INET) {
        return ntohl(peer.v4.sin_addr.s_addr) >> 24 == 127;
    }
    return peer.any.sa_family == AF_INET6 &&
           (IN6_IS_ADDR_LOOPBACK(&peer.v6.sin6_addr) ||
            (IN6_IS_ADDR_V4MAPPED(&peer.v6.sin6_addr) && peer.v6.sin6_addr.s6_addr[12] == 127));
}
