#include "kit/kit_proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS = 64, BUFFER_BYTES = 64 << 10, TICK_MS = 5, SLOW_BYTES = 512, BEFORE_CLOSE_BYTES = 200 };

/* One direction of a connection. */
struct pipe {
    char *buffer;
    size_t from;
    size_t len;
    bool ended; /* the reading side said so */
};

struct pair {
    int client; /* -1 = a free place */
    int server;
    struct pipe up;    /* backend to broker */
    struct pipe down;  /* broker to backend */
    size_t down_bytes; /* since the fault was set */
    bool ended;        /* the backend was told so by a FIN: what it still says is read and dropped */
};

struct kit_proxy {
    int listener;
    unsigned port;
    struct sockaddr_storage target;
    socklen_t target_len;
    pthread_t thread;
    atomic_int fault;
    atomic_uint rounds; /* of the thread's loop */
    bool refusing;
    atomic_bool stop;
    atomic_uint_fast64_t up_bytes;
    struct pair pairs[PAIRS];
};

static int bind_to(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0) {
        return -1;
    }
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(listener);
        return -1;
    }
    return listener;
}

/* Bound a second time by its number: only then does the port stay ours while nothing is accepted. */
static int make_listener(unsigned *port)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof address;
    int found = bind_to(0);
    bool known = found >= 0 && getsockname(found, (struct sockaddr *)&address, &len) == 0;
    *port = ntohs(address.sin_port);
    if (found >= 0) {
        (void)close(found);
    }
    int listener = known ? bind_to(*port) : -1;
    if (listener >= 0 && listen(listener, PAIRS) != 0) {
        (void)close(listener);
        return -1;
    }
    return listener;
}

static void close_pair(struct pair *pair, bool reset)
{
    const struct linger hard = {1, 0};
    if (reset) {
        (void)setsockopt(pair->client, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    (void)close(pair->client);
    (void)close(pair->server);
    free(pair->up.buffer);
    free(pair->down.buffer);
    *pair = (struct pair){.client = -1, .server = -1};
}

static void accept_one(struct kit_proxy *proxy)
{
    struct pair *pair = proxy->pairs;
    while (pair < proxy->pairs + PAIRS && pair->client >= 0) {
        pair++;
    }
    int client = pair < proxy->pairs + PAIRS ? accept(proxy->listener, NULL, NULL) : -1;
    if (client < 0) {
        return;
    }
    int server = socket(proxy->target.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char *up = malloc(BUFFER_BYTES);
    char *down = malloc(BUFFER_BYTES);
    *pair = (struct pair){.client = client, .server = server, .up = {.buffer = up}, .down = {.buffer = down}};
    /* The broker is near: a connect that blocks for a moment does no harm here. */
    if (server < 0 || !up || !down ||
        connect(server, (struct sockaddr *)&proxy->target, proxy->target_len) != 0) {
        close_pair(pair, true);
        return;
    }
    (void)fcntl(client, F_SETFL, O_NONBLOCK);
    (void)fcntl(client, F_SETFD, FD_CLOEXEC);
    (void)fcntl(server, F_SETFL, O_NONBLOCK);
}

static void fill(struct pipe *pipe, int fd)
{
    if (pipe->len > 0 || pipe->ended) {
        return;
    }
    ssize_t got = recv(fd, pipe->buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (got > 0) {
        pipe->from = 0;
        pipe->len = (size_t)got;
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        pipe->ended = true;
    }
}

/* Bytes that went; at most `most` of them. */
static size_t empty(struct pipe *pipe, int fd, size_t most)
{
    size_t len = pipe->len < most ? pipe->len : most;
    ssize_t sent = len > 0 ? send(fd, pipe->buffer + pipe->from, len, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    if (sent < 0) {
        pipe->ended = pipe->ended || (errno != EAGAIN && errno != EINTR);
        return 0;
    }
    pipe->from += (size_t)sent;
    pipe->len -= (size_t)sent;
    return (size_t)sent;
}

/* How many of the broker's bytes go through before the connection breaks; SIZE_MAX = all of them. */
static size_t before_break(enum kit_fault fault)
{
    return fault == KIT_RESET ? 0 : fault == KIT_CUT ? 1 : fault == KIT_CLOSE ? BEFORE_CLOSE_BYTES : SIZE_MAX;
}

/* Carries what the broker says; true if the connection is to break now. */
static bool carry_down(struct pair *pair, enum kit_fault fault, size_t most)
{
    size_t limit = before_break(fault);
    fill(&pair->down, pair->server);
    if (fault == KIT_GARBAGE) {
        memset(pair->down.buffer + pair->down.from, 'z', pair->down.len);
    }
    if (limit == SIZE_MAX) {
        pair->down_bytes = 0;
        (void)empty(&pair->down, pair->client, most);
        return false;
    }
    bool answered = pair->down.len > 0;
    size_t left = limit > pair->down_bytes ? limit - pair->down_bytes : 0;
    pair->down_bytes += empty(&pair->down, pair->client, left < most ? left : most);
    return answered && pair->down_bytes >= limit;
}

/* Ends it as a peer does that closes: FIN, not RST, whatever the backend is still sending. */
static void end_politely(struct pair *pair)
{
    (void)shutdown(pair->client, SHUT_WR);
    (void)shutdown(pair->server, SHUT_RDWR);
    pair->ended = true;
}

static void serve(struct kit_proxy *proxy, struct pair *pair, enum kit_fault fault)
{
    size_t most = fault == KIT_SLOW ? SLOW_BYTES : BUFFER_BYTES;
    bool broken = false;
    if (pair->ended) {
        fill(&pair->up, pair->client);
        pair->up.len = 0;
        if (pair->up.ended) {
            close_pair(pair, false);
        }
        return;
    }
    if (fault == KIT_SILENCE) {
        return;
    }
    if (fault != KIT_MUTE) {
        fill(&pair->up, pair->client);
        atomic_fetch_add(&proxy->up_bytes, empty(&pair->up, pair->server, most));
    }
    if (fault != KIT_DEAF) {
        broken = carry_down(pair, fault, most);
    }
    if (broken && fault == KIT_RESET) {
        close_pair(pair, true);
    } else if (broken || (pair->down.ended && pair->down.len == 0)) {
        end_politely(pair);
    } else if (pair->up.ended && pair->up.len == 0) {
        close_pair(pair, false);
    }
}

/* Until something is to be read, or a tick has passed: faults change behind our back. */
static void await(struct kit_proxy *proxy, enum kit_fault fault)
{
    struct pollfd fds[2 * PAIRS + 1];
    nfds_t count = 0;
    if (fault == KIT_SLOW || fault == KIT_SILENCE || fault == KIT_MUTE) {
        (void)poll(NULL, 0, TICK_MS);
        return;
    }
    if (!proxy->refusing) {
        fds[count++] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
    }
    for (size_t at = 0; at < PAIRS; at++) {
        const struct pair *pair = &proxy->pairs[at];
        if (pair->client >= 0 && !pair->ended) {
            bool hears = fault != KIT_DEAF;
            fds[count++] = (struct pollfd){.fd = pair->client,
                                           .events = (short)((pair->up.len == 0 ? POLLIN : 0) |
                                                             (pair->down.len > 0 && hears ? POLLOUT : 0))};
            fds[count++] = (struct pollfd){.fd = pair->server,
                                           .events = (short)((pair->down.len == 0 && hears ? POLLIN : 0) |
                                                             (pair->up.len > 0 ? POLLOUT : 0))};
        }
    }
    (void)poll(fds, count, TICK_MS);
}

static void *run(void *object)
{
    struct kit_proxy *proxy = object;
    while (!atomic_load(&proxy->stop)) {
        enum kit_fault fault = (enum kit_fault)atomic_load(&proxy->fault);
        if (proxy->refusing != (fault == KIT_REFUSE)) { /* the port stays ours in either case */
            proxy->refusing = !proxy->refusing;
            (void)(proxy->refusing ? shutdown(proxy->listener, SHUT_RD) : listen(proxy->listener, PAIRS));
        }
        await(proxy, fault);
        if (!proxy->refusing) {
            accept_one(proxy);
        }
        for (size_t at = 0; at < PAIRS; at++) {
            if (proxy->pairs[at].client >= 0 && fault == KIT_REFUSE) {
                close_pair(&proxy->pairs[at], true);
            } else if (proxy->pairs[at].client >= 0) {
                serve(proxy, &proxy->pairs[at], fault);
            }
        }
        atomic_fetch_add(&proxy->rounds, 1);
    }
    return NULL;
}

static int resolve(struct kit_proxy *proxy, const char *host, const char *port, struct err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int result = getaddrinfo(host, port, &hints, &found);
    if (result != 0) {
        return err_set(err, ERR_CONFIG, "%s: %s", host, gai_strerror(result));
    }
    for (struct addrinfo *at = found; at && proxy->target_len == 0; at = at->ai_next) {
        int probe = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (probe >= 0 && connect(probe, at->ai_addr, at->ai_addrlen) == 0) {
            memcpy(&proxy->target, at->ai_addr, at->ai_addrlen);
            proxy->target_len = at->ai_addrlen;
        }
        if (probe >= 0) {
            (void)close(probe);
        }
    }
    freeaddrinfo(found);
    return proxy->target_len > 0 ? 0 : err_set(err, ERR_CONNECTION, "%s:%s does not answer", host, port);
}

int kit_proxy_start(struct kit_proxy **out, const char *host, const char *port, struct err *err)
{
    struct kit_proxy *proxy = calloc(1, sizeof *proxy);
    if (!proxy) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    for (size_t at = 0; at < PAIRS; at++) {
        proxy->pairs[at] = (struct pair){.client = -1, .server = -1};
    }
    proxy->listener = -1;
    if (resolve(proxy, host, port, err) == 0) {
        proxy->listener = make_listener(&proxy->port);
        if (proxy->listener >= 0 && pthread_create(&proxy->thread, NULL, run, proxy) == 0) {
            *out = proxy;
            return 0;
        }
        (void)err_set(err, ERR_INTERNAL, "the proxy cannot be started: %s", strerror(errno));
    }
    if (proxy->listener >= 0) {
        (void)close(proxy->listener);
    }
    free(proxy);
    return -1;
}

void kit_proxy_stop(struct kit_proxy *proxy)
{
    if (!proxy) {
        return;
    }
    atomic_store(&proxy->stop, true);
    (void)pthread_join(proxy->thread, NULL);
    for (size_t at = 0; at < PAIRS; at++) {
        if (proxy->pairs[at].client >= 0) {
            close_pair(&proxy->pairs[at], true);
        }
    }
    if (proxy->listener >= 0) {
        (void)close(proxy->listener);
    }
    free(proxy);
}

unsigned kit_proxy_port(const struct kit_proxy *proxy)
{
    return proxy->port;
}

void kit_proxy_set(struct kit_proxy *proxy, enum kit_fault fault)
{
    atomic_store(&proxy->fault, fault);
    unsigned before = atomic_load(&proxy->rounds);
    while (atomic_load(&proxy->rounds) - before < 2) { /* the round that was under way, and a whole one */
        (void)poll(NULL, 0, 1);
    }
}

uint64_t kit_proxy_bytes(const struct kit_proxy *proxy)
{
    return atomic_load(&proxy->up_bytes);
}
