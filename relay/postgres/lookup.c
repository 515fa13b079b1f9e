#include "postgres/lookup.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

/* Of the thread that waits for the answer and of who asked, who may leave it behind. The last of them frees.
 */
struct lookup {
    atomic_int owners;
    int answered_fd;
    int result; /* as getaddrinfo() has it, and errno with it */
    int fault;
    char name[];
};

static void release(struct lookup *lookup)
{
    if (atomic_fetch_sub(&lookup->owners, 1) == 1) {
        (void)close(lookup->answered_fd);
        free(lookup);
    }
}

static int ask(const char *name, int flags)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *addresses = NULL;
    int result = getaddrinfo(name, NULL, &hints, &addresses);
    if (result == 0) {
        freeaddrinfo(addresses);
    }
    return result;
}

static void *run(void *context)
{
    struct lookup *lookup = context;
    lookup->result = ask(lookup->name, 0);
    lookup->fault = errno;
    const uint64_t one = 1;
    (void)!write(lookup->answered_fd, &one, sizeof one);
    release(lookup);
    return NULL;
}

static struct lookup *new_lookup(const char *name)
{
    size_t bytes = strlen(name) + 1;
    struct lookup *lookup = calloc(1, sizeof *lookup + bytes);
    if (lookup) {
        memcpy(lookup->name, name, bytes);
        lookup->answered_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        atomic_init(&lookup->owners, 2);
    }
    return lookup;
}

/* Signals are for one thread of ours alone. 0, or an errno. */
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
    int fault = lookup->answered_fd < 0 ? EMFILE : pthread_create(&thread, &detached, run, lookup);
    if (fault != 0) {
        atomic_store(&lookup->owners, 1);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&detached);
    return fault;
}

static int await(const struct lookup *lookup, int stop_fd, int64_t deadline_ms, struct err *err)
{
    struct pollfd fds[2] = {{.fd = lookup->answered_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    for (;;) {
        int ready = poll(fds, 2, clock_poll_timeout(deadline_ms, 60000));
        if (ready < 0 && errno != EINTR) {
            return err_set(err, ERR_INTERNAL, "poll failed: %s", strerror(errno));
        }
        uint64_t count = 0;
        if (ready > 0 && fds[0].revents && read(lookup->answered_fd, &count, sizeof count) > 0) {
            break;
        }
        if (ready > 0) {
            return err_set(err, ERR_STOPPED, "stopped while the name \"%s\" was looked up", lookup->name);
        }
        if (clock_now_ms() >= deadline_ms) {
            return err_set(err, ERR_CONNECTION, "no name server answered in time for \"%s\"", lookup->name);
        }
    }
    return lookup->result == 0
               ? 0
               : err_set(
                     err, ERR_CONNECTION, "could not translate host name \"%s\" to address: %s", lookup->name,
                     lookup->result == EAI_SYSTEM ? strerror(lookup->fault) : gai_strerror(lookup->result));
}

int lookup_host(const char *name, int stop_fd, int64_t deadline_ms, struct err *err)
{
    if (ask(name, AI_NUMERICHOST) == 0) {
        return 0;
    }
    struct lookup *lookup = new_lookup(name);
    if (!lookup) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    int fault = start(lookup);
    int result = fault != 0 ? err_set(err, ERR_CONNECTION, "cannot look up \"%s\": %s", name, strerror(fault))
                            : await(lookup, stop_fd, deadline_ms, err);
    release(lookup);
    return result;
}
