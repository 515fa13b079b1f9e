/*
 * log - one event per line, as text, logfmt or JSON, on one descriptor.
 *
 * Foreign text is escaped. Payloads, header values and secrets have no business here. Thread-safe: one
 * write(2) per line.
 */
#ifndef RELAY_LOG_H
#define RELAY_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR = 0, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_FORMAT_TEXT = 0, LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

struct log {
    enum log_level level; /* events above it are dropped */
    enum log_format format;
    int fd;
};

struct log_field {
    const char *name;
    const char *text; /* NULL = the number counts */
    int64_t number;
};

static inline struct log_field log_text(const char *name, const char *text)
{
    return (struct log_field){name, text ? text : "", 0};
}

static inline struct log_field log_number(const char *name, int64_t number)
{
    return (struct log_field){name, 0, number};
}

/* LOG(log, LOG_INFO, "what happened", log_text("channel", c), log_number("rows", n)); LOG_PLAIN without
 * fields. */
#define LOG(log, level, message, ...)                                                                        \
    log_event((log), (level), (message), (const struct log_field[]){__VA_ARGS__, {0}})
#define LOG_PLAIN(log, level, message) log_event((log), (level), (message), NULL)

void log_event(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields);

/* Lines of one kind that others bring about: at most 60 a minute, so that nobody fills the disk. Zeroed to
 * begin with. */
struct log_quota {
    _Atomic int64_t since_ms; /* a minute begins; 0 = none has */
    _Atomic int64_t lines;    /* in it, shown or not */
};

/* May another one be shown? *left_out: how many of the minute before were not, to be told once. */
bool log_may_tell(struct log_quota *quota, int64_t now_ms, int64_t *left_out);

const char *log_level_name(enum log_level level);

#endif
