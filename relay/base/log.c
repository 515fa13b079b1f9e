#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/printable.h"

/* POSIX, write(2): what poll(2) says goes into a pipe goes in whole up to PIPE_BUF. */
enum { LINE_MAX_BYTES = 4095, TAIL_BYTES = 600 }; /* what a long text leaves to the fields behind it */

static pthread_mutex_t one_line_at_a_time = PTHREAD_MUTEX_INITIALIZER;
static unsigned dropped; /* lines that nobody took; under the lock */

bool log_may_tell(struct log_quota *quota, int64_t now_ms, int64_t *left_out)
{
    enum { LINES_AT_MOST = 60, PERIOD_MS = 60000 };
    int64_t since_ms = atomic_load(&quota->since_ms);
    bool over = since_ms == 0 || now_ms - since_ms >= PERIOD_MS;
    *left_out = 0;
    if (over && atomic_compare_exchange_strong(&quota->since_ms, &since_ms, now_ms)) {
        int64_t lines = atomic_exchange(&quota->lines, 0);
        *left_out = lines > LINES_AT_MOST ? lines - LINES_AT_MOST : 0;
    }
    return atomic_fetch_add(&quota->lines, 1) < LINES_AT_MOST;
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    return names[level];
}

static void add_timestamp(struct text *line)
{
    int64_t now_us = clock_wall_us();
    time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    char date[32];
    (void)gmtime_r(&seconds, &utc);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    text_addf(line, "%s.%03dZ", date, (int)(now_us / 1000 % 1000));
}

/* logfmt: quoted only where the value would not read as one word. */
static void add_logfmt(struct text *line, struct bytes value)
{
    bool word = value.len > 0;
    for (size_t at = 0; at < value.len && word; at++) {
        unsigned char byte = (unsigned char)value.ptr[at];
        word = byte > ' ' && byte < 0x7F && byte != '"' && byte != '=' && byte != '\\';
    }
    if (word) {
        text_add_bytes(line, value);
    } else {
        text_add_json(line, value);
    }
}

static void cut_back(struct text *line, size_t len)
{
    line->overflow = false;
    line->len = len;
    if (line->ptr) { /* NULL: there was no memory for its first byte */
        line->ptr[len] = '\0';
    }
}

/* Escaped, it may be six times as long: what does not fit is cut, and the line stays whole for who parses it.
 */
static void add_value(struct text *line, void (*add)(struct text *line, struct bytes value),
                      struct bytes value)
{
    size_t before = line->len;
    if (line->overflow) {
        return; /* not even its name had room */
    }
    add(line, value);
    while ((line->overflow || line->len + TAIL_BYTES > LINE_MAX_BYTES) && value.len > 0) {
        cut_back(line, before);
        value.len /= 2;
        add(line, value);
    }
}

static void add_field(struct text *line, enum log_format format, const struct log_field *field)
{
    size_t before = line->len;
    if (format == LOG_FORMAT_JSON) {
        text_addf(line, ",\"%s\":", field->name);
    } else {
        text_addf(line, " %s=", field->name);
    }
    if (!field->text) {
        text_addf(line, "%lld", (long long)field->number);
    } else {
        add_value(line, format == LOG_FORMAT_JSON ? text_add_json : add_logfmt, bytes_of(field->text));
    }
    if (line->overflow || line->len + sizeof "}\n" > LINE_MAX_BYTES) {
        cut_back(line, before); /* a field is there as a whole, or not at all */
    }
}

static void add_head(struct text *line, enum log_format format, enum log_level level, const char *message)
{
    if (format == LOG_FORMAT_JSON) {
        text_add(line, "{\"ts\":\"");
        add_timestamp(line);
        text_addf(line, "\",\"level\":\"%s\",\"msg\":", log_level_name(level));
        add_value(line, text_add_json, bytes_of(message));
    } else if (format == LOG_FORMAT_LOGFMT) {
        text_add(line, "ts=");
        add_timestamp(line);
        text_addf(line, " level=%s msg=", log_level_name(level));
        add_value(line, add_logfmt, bytes_of(message));
    } else {
        add_timestamp(line);
        text_addf(line, " %-7s ", log_level_name(level));
        add_value(line, text_add_printable, bytes_of(message));
    }
}

static bool is_writable(int fd)
{
    struct pollfd out = {.fd = fd, .events = POLLOUT};
    return poll(&out, 1, 0) != 0; /* an error is for write() to tell */
}

/* A log that cannot be written must not stop messages, nor hold a transaction: there is nobody left to tell.
 */
static void write_line(int fd, const struct text *line)
{
    char loss[80];
    (void)pthread_mutex_lock(&one_line_at_a_time);
    bool taken = is_writable(fd);
    if (taken && dropped > 0) {
        int len = snprintf(loss, sizeof loss, "%u lines of this log were dropped: nobody read it\n", dropped);
        (void)!write(fd, loss, (size_t)len);
        dropped = 0;
        taken = is_writable(fd);
    }
    while (taken && line->len > 0 && write(fd, line->ptr, line->len) < 0 && errno == EINTR) {
    }
    dropped += !taken;
    (void)pthread_mutex_unlock(&one_line_at_a_time);
}

void log_event(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields)
{
    if (level > log->level) {
        return;
    }
    struct text line;
    text_init(&line, LINE_MAX_BYTES);
    add_head(&line, log->format, level, message);
    for (; fields && fields->name; fields++) {
        add_field(&line, log->format, fields);
    }
    text_add(&line, log->format == LOG_FORMAT_JSON ? "}\n" : "\n");
    write_line(log->fd, &line);
    text_finish(&line);
}
