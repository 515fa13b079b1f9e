/*
 * example - a backend of outbox-relay: appends each message's payload as a line to a file.
 *
 * Replace the file with your broker. The contract of every function stands in <outbox_backend.h>;
 * "outbox-relay backends test" says whether it is kept.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <outbox_backend.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct destination { /* one per process: what the settings say */
    const char *path;
};

struct session { /* one per worker thread: no locks needed */
    const struct destination *destination;
    int fd;
};

static int failed(struct outbox_error *error, enum outbox_error_kind kind, const char *what)
{
    error->kind = kind;
    (void)snprintf(error->text, sizeof error->text, "example: cannot %s: %s", what, strerror(errno));
    return -1;
}

static int destination_open(void **backend, const struct outbox_host *host,
                            const struct outbox_settings *settings, struct outbox_error *error)
{
    struct destination *destination = calloc(1, sizeof *destination);
    if (!destination) {
        return failed(error, OUTBOX_ERROR_UNAVAILABLE, "allocate memory");
    }
    destination->path = host->get_string(settings, "path");
    *backend = destination;
    return 0;
}

static void destination_close(void *backend)
{
    free(backend);
}

static int session_new(void *backend, void **out, struct outbox_error *error)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return failed(error, OUTBOX_ERROR_UNAVAILABLE, "allocate memory");
    }
    session->destination = backend;
    *out = session;
    return 0;
}

static void session_free(void *session)
{
    free(session);
}

static int session_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    (void)deadline_ms; /* a file does not keep us waiting; a broker would: give up by then */
    session->fd = open(session->destination->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    return session->fd >= 0 ? 0 : failed(error, OUTBOX_ERROR_CONFIG, "open the file of option 'path'");
}

static void session_disconnect(void *object)
{
    (void)close(((struct session *)object)->fd);
}

static int write_line(int fd, struct outbox_bytes payload)
{
    while (payload.len > 0) {
        ssize_t written = write(fd, payload.ptr, payload.len);
        if (written < 0) {
            return -1;
        }
        payload.ptr += written;
        payload.len -= (size_t)written;
    }
    return write(fd, "\n", 1) == 1 ? 0 : -1;
}

/* CONFIRMED means that the other side took responsibility: here, that the lines are on the disk. */
static enum outbox_session_state session_publish(void *object, struct outbox_batch *batch,
                                                 int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    (void)deadline_ms;
    for (size_t at = 0; at < batch->count; at++) {
        if (write_line(session->fd, batch->messages[at]->payload) != 0) {
            (void)failed(error, OUTBOX_ERROR_UNAVAILABLE, "write");
            return OUTBOX_SESSION_LOST; /* nothing is settled: every row stays */
        }
    }
    if (fsync(session->fd) != 0 && errno != EINVAL && errno != EROFS) { /* a pipe or device cannot */
        (void)failed(error, OUTBOX_ERROR_UNAVAILABLE, "write to the disk");
        return OUTBOX_SESSION_LOST;
    }
    for (size_t at = 0; at < batch->count; at++) {
        batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
    }
    return OUTBOX_SESSION_OK;
}

static const struct outbox_option options[] = {
    {"path", OUTBOX_OPT_STRING, 0, "example.out", NULL, 0, 0, "the file that lines are appended to"},
    {0},
};

static const struct outbox_backend table = {
    .size = sizeof(struct outbox_backend),
    .name = "example",
    .version = "0.1.0",
    .options = options,
    .open = destination_open,
    .close = destination_close,
    .session_new = session_new,
    .session_free = session_free,
    .connect = session_connect,
    .disconnect = session_disconnect,
    .publish = session_publish,
};

OUTBOX_BACKEND("example", "0.1.0", table);
