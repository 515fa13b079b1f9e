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

#include "kit/kit_pair.h"

enum { PAIRS = 256, TICK_MS = 5, FILLERS = 8, FILL_MS = 100, QUIET_MS = 1000 };

struct kit_proxy {
    int listener;
    unsigned port;
    struct sockaddr_storage target;
    socklen_t target_len;
    pthread_t thread;
    atomic_int fault;
    enum kit_fault done;  /* what the listener was told last */
    atomic_uint rounds;   /* of the thread's loop */
    int fillers[FILLERS]; /* what fills the queue of connections, so that no other gets in; 0 = none */
    atomic_bool stop;
    atomic_uint_fast64_t up_bytes;
    pthread_mutex_t lock; /* over what follows; the thread holds it but while it waits */
    struct kit_pair pairs[PAIRS];
    struct kit_tape tapes[PAIRS]; /* of the connection in that place, and of those before it */
    bool listens;
};

/* ---- the listener ---- */

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
        int saved = errno;
        (void)close(listener);
        errno = saved;
        return -1;
    }
    return listener;
}

/* Bound a second time by its number: only then does the port stay ours while nothing is accepted. */
static int make_listener(unsigned *port)
{
    if (*port == 0) {
        struct sockaddr_in address = {0};
        socklen_t len = sizeof address;
        int found = bind_to(0);
        bool known = found >= 0 && getsockname(found, (struct sockaddr *)&address, &len) == 0;
        *port = ntohs(address.sin_port);
        if (found >= 0) {
            (void)close(found);
        }
        if (!known) {
            return -1;
        }
    }
    int listener = bind_to(*port);
    if (listener >= 0 && listen(listener, PAIRS) != 0) {
        (void)close(listener);
        return -1;
    }
    return listener;
}

/* One connection more in the queue; false if it found no room, which is what is wanted. */
static bool fill_place(struct kit_proxy *proxy, int *filler)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)proxy->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    *filler = fd >= 0 ? fd : 0;
    return fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ||
                       (errno == EINPROGRESS && poll(&wait, 1, FILL_MS) == 1));
}

/* A queue of one place, and that is taken: the kernel drops who comes now. */
static void open_hole(struct kit_proxy *proxy)
{
    (void)listen(proxy->listener, 0);
    for (size_t at = 0; at < FILLERS && fill_place(proxy, &proxy->fillers[at]); at++) {
    }
}

static void close_hole(struct kit_proxy *proxy)
{
    for (size_t at = 0; at < FILLERS && proxy->fillers[at] > 0; at++) {
        (void)close(proxy->fillers[at]);
        proxy->fillers[at] = 0;
    }
    int queued = -1;
    while ((queued = accept(proxy->listener, NULL, NULL)) >= 0) {
        (void)close(queued);
    }
}

static bool accepts(enum kit_fault fault)
{
    return fault != KIT_REFUSE && fault != KIT_HOLE;
}

/* The port stays ours, whatever is done with it. */
static void follow(struct kit_proxy *proxy, enum kit_fault fault)
{
    if (fault == proxy->done) {
        return;
    }
    if (proxy->done == KIT_HOLE) {
        close_hole(proxy);
    }
    if (fault == KIT_REFUSE) {
        (void)shutdown(proxy->listener, SHUT_RD);
    } else if (fault == KIT_HOLE) {
        open_hole(proxy);
    } else if (!accepts(proxy->done)) {
        (void)listen(proxy->listener, PAIRS);
    }
    proxy->done = fault;
}

/* ---- the thread ---- */

static void accept_one(struct kit_proxy *proxy)
{
    size_t at = 0;
    while (at < PAIRS && proxy->pairs[at].client >= 0) {
        at++;
    }
    int client = at < PAIRS ? accept(proxy->listener, NULL, NULL) : -1;
    if (client >= 0 &&
        kit_pair_open(&proxy->pairs[at], client, (struct sockaddr *)&proxy->target, proxy->target_len)) {
        proxy->pairs[at].tape = proxy->listens ? &proxy->tapes[at] : NULL;
    }
}

/* Until something is to be read, or a tick has passed: faults change behind our back. */
static void await(struct kit_proxy *proxy, enum kit_fault fault)
{
    struct pollfd fds[2 * PAIRS + 1];
    nfds_t count = 0;
    if (fault == KIT_SLOW || fault == KIT_SILENCE || fault == KIT_MUTE || fault == KIT_HOLE) {
        (void)poll(NULL, 0, TICK_MS);
        return;
    }
    if (accepts(fault)) {
        fds[count++] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
    }
    (void)pthread_mutex_lock(&proxy->lock);
    for (size_t at = 0; at < PAIRS; at++) {
        if (proxy->pairs[at].client >= 0) {
            kit_pair_poll(&proxy->pairs[at], fault, &fds[count]);
            count += 2;
        }
    }
    (void)pthread_mutex_unlock(&proxy->lock);
    (void)poll(fds, count, TICK_MS);
}

static void *run(void *object)
{
    struct kit_proxy *proxy = object;
    while (!atomic_load(&proxy->stop)) {
        enum kit_fault fault = (enum kit_fault)atomic_load(&proxy->fault);
        follow(proxy, fault);
        await(proxy, fault);
        (void)pthread_mutex_lock(&proxy->lock);
        if (accepts(fault)) {
            accept_one(proxy);
        }
        for (size_t at = 0; at < PAIRS; at++) {
            if (proxy->pairs[at].client >= 0) {
                atomic_fetch_add(&proxy->up_bytes, kit_pair_serve(&proxy->pairs[at], fault));
            }
        }
        (void)pthread_mutex_unlock(&proxy->lock);
        atomic_fetch_add(&proxy->rounds, 1);
    }
    return NULL;
}

/* ---- its life ---- */

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

int kit_proxy_start(struct kit_proxy **out, const char *host, const char *port, unsigned listen_port,
                    struct err *err)
{
    struct kit_proxy *proxy = calloc(1, sizeof *proxy);
    if (!proxy) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    for (size_t at = 0; at < PAIRS; at++) {
        proxy->pairs[at] = (struct kit_pair){.client = -1, .server = -1};
    }
    proxy->listener = -1;
    proxy->port = listen_port;
    (void)pthread_mutex_init(&proxy->lock, NULL);
    if (resolve(proxy, host, port, err) == 0) {
        proxy->listener = make_listener(&proxy->port);
        if (proxy->listener >= 0 && pthread_create(&proxy->thread, NULL, run, proxy) == 0) {
            *out = proxy;
            return 0;
        }
        (void)err_set(err, ERR_INTERNAL, "it cannot listen on 127.0.0.1:%u: %s", proxy->port,
                      strerror(errno));
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
    close_hole(proxy);
    for (size_t at = 0; at < PAIRS; at++) {
        if (proxy->pairs[at].client >= 0) {
            kit_pair_close(&proxy->pairs[at], true);
        }
        kit_tape_finish(&proxy->tapes[at]);
    }
    (void)close(proxy->listener);
    free(proxy);
}

unsigned kit_proxy_port(const struct kit_proxy *proxy)
{
    return proxy->port;
}

/* ---- faults ---- */

/* The round that was under way, and a whole one. */
static void await_round(struct kit_proxy *proxy)
{
    unsigned before = atomic_load(&proxy->rounds);
    while (atomic_load(&proxy->rounds) - before < 2) {
        (void)poll(NULL, 0, 1);
    }
}

void kit_proxy_set(struct kit_proxy *proxy, enum kit_fault fault)
{
    atomic_store(&proxy->fault, fault);
    await_round(proxy);
}

void kit_proxy_set_once(struct kit_proxy *proxy, enum kit_fault fault)
{
    (void)pthread_mutex_lock(&proxy->lock);
    for (size_t at = 0; at < PAIRS; at++) {
        proxy->pairs[at].own = proxy->pairs[at].client >= 0 ? fault : KIT_PASS;
    }
    (void)pthread_mutex_unlock(&proxy->lock);
}

/* ---- what it knows ---- */

uint64_t kit_proxy_bytes(const struct kit_proxy *proxy)
{
    return atomic_load(&proxy->up_bytes);
}

void kit_proxy_listen(struct kit_proxy *proxy)
{
    (void)pthread_mutex_lock(&proxy->lock);
    proxy->listens = true;
    for (size_t at = 0; at < PAIRS; at++) {
        kit_tape_finish(&proxy->tapes[at]);
        proxy->pairs[at].tape = &proxy->tapes[at];
    }
    (void)pthread_mutex_unlock(&proxy->lock);
}

bool kit_proxy_heard_text(struct kit_proxy *proxy, const char *text, size_t len)
{
    bool heard = false;
    (void)pthread_mutex_lock(&proxy->lock);
    for (size_t at = 0; at < PAIRS && !heard; at++) {
        heard = kit_tape_holds(&proxy->tapes[at], text, len);
    }
    (void)pthread_mutex_unlock(&proxy->lock);
    return heard;
}

bool kit_proxy_heard(struct kit_proxy *proxy, unsigned first, size_t count, bool *heard)
{
    bool whole = true;
    memset(heard, 0, count * sizeof *heard);
    (void)pthread_mutex_lock(&proxy->lock);
    for (size_t at = 0; at < PAIRS; at++) {
        kit_tape_find_marks(&proxy->tapes[at], first, count, heard);
        whole = whole && !proxy->tapes[at].full;
    }
    (void)pthread_mutex_unlock(&proxy->lock);
    return whole;
}

bool kit_proxy_owns(struct kit_proxy *proxy, int fd)
{
    bool owns = fd == proxy->listener;
    (void)pthread_mutex_lock(&proxy->lock);
    for (size_t at = 0; at < PAIRS; at++) {
        owns = owns || fd == proxy->pairs[at].client || fd == proxy->pairs[at].server;
    }
    (void)pthread_mutex_unlock(&proxy->lock);
    return owns;
}

static int count_pairs(struct kit_proxy *proxy)
{
    int count = 0;
    (void)pthread_mutex_lock(&proxy->lock);
    for (size_t at = 0; at < PAIRS; at++) {
        count += proxy->pairs[at].client >= 0;
    }
    (void)pthread_mutex_unlock(&proxy->lock);
    return count;
}

int kit_proxy_descriptors(struct kit_proxy *proxy)
{
    int pairs = count_pairs(proxy);
    for (int waited_ms = 0; pairs > 0 && waited_ms < QUIET_MS; waited_ms += TICK_MS) {
        (void)poll(NULL, 0, TICK_MS);
        pairs = count_pairs(proxy);
    }
    return 1 + 2 * pairs;
}
