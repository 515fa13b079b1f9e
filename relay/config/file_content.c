#include "config/file_content.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

enum { PATIENCE_MS = 5000, PIECE_BYTES = 64 << 10 };

/* poll(2) calls a regular file ready at once. */
static int await(int fd, int64_t deadline_ms)
{
    struct pollfd in = {.fd = fd, .events = POLLIN};
    int64_t left_ms = deadline_ms - clock_now_ms();
    int ready = poll(&in, 1, left_ms > 0 ? (int)left_ms : 0);
    return ready > 0 || (ready < 0 && errno == EINTR) ? 0 : ready == 0 ? ETIMEDOUT : errno;
}

/* A larger buffer; what the old one held is not left behind. */
static int grow(struct file_content *content, size_t capacity)
{
    char *grown = malloc(capacity + 1);
    if (!grown) {
        return ENOMEM;
    }
    if (content->bytes) {
        memcpy(grown, content->bytes, content->len);
        explicit_bzero(content->bytes, content->len);
        free(content->bytes);
    }
    content->bytes = grown;
    return 0;
}

static int read_all(struct file_content *content, int fd, size_t max_bytes)
{
    int64_t deadline_ms = clock_now_ms() + PATIENCE_MS;
    size_t capacity = 0;
    ssize_t got = 1;
    int fault = 0;
    while (fault == 0 && got != 0) {
        if (content->len == capacity) {
            capacity = 2 * capacity + PIECE_BYTES <= max_bytes ? 2 * capacity + PIECE_BYTES : max_bytes + 1;
            fault = grow(content, capacity);
        }
        fault = fault ? fault : await(fd, deadline_ms);
        got = fault ? -1 : read(fd, content->bytes + content->len, capacity - content->len);
        if (got > 0) {
            content->len += (size_t)got;
            fault = content->len > max_bytes ? EFBIG : 0;
        } else if (got < 0 && fault == 0 && errno != EINTR && errno != EAGAIN) {
            fault = errno;
        }
    }
    return fault;
}

int file_content_read(struct file_content *content, const char *path, size_t max_bytes)
{
    *content = (struct file_content){.bytes = NULL};
    struct stat status;
    int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a pipe without a writer hangs open() */
    if (fd < 0) {
        return errno;
    }
    int fault = fstat(fd, &status) != 0 ? errno : read_all(content, fd, max_bytes);
    (void)close(fd);
    if (fault != 0) {
        file_content_finish(content);
        return fault;
    }
    content->bytes[content->len] = '\0';
    content->others_read = S_ISREG(status.st_mode) && (status.st_mode & S_IROTH) != 0;
    content->others_write = S_ISREG(status.st_mode) && (status.st_mode & S_IWOTH) != 0;
    return 0;
}

void file_content_finish(struct file_content *content)
{
    if (content->bytes) {
        explicit_bzero(content->bytes, content->len);
        free(content->bytes);
    }
    *content = (struct file_content){.bytes = NULL};
}
