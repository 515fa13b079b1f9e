/*
 * err - an error that says what to do about it.
 *
 * Owned by the caller, last parameter of every function that can fail, filled where the fault happened and
 * not overwritten on the way up. The CLASS decides what happens next; nobody compares texts.
 */
#ifndef RELAY_ERR_H
#define RELAY_ERR_H

#include <stdbool.h>

enum err_class {
    ERR_NONE = 0,
    ERR_USAGE,      /* the command line is wrong                             exit 64 */
    ERR_CONFIG,     /* configuration or schema: a person must change it      exit 78 */
    ERR_REFUSED,    /* password or privileges                                exit 77 */
    ERR_CONNECTION, /* the other side is away: connect again after a backoff exit 69 */
    ERR_RETRY,      /* this transaction failed, the next may not             exit 69 */
    ERR_STOPPED,    /* a stop was asked for while waiting                    exit 75 */
    ERR_INTERNAL    /* a fault of ours                                       exit 70 */
};

struct err {
    enum err_class class;
    char sqlstate[6]; /* "" where the fault is not PostgreSQL's */
    char text[600];   /* one sentence, UTF-8, no trailing period or newline */
};

/* Marks functions whose result must not be ignored. */
#define MUST_CHECK __attribute__((warn_unused_result))

/* Fills *err unless it already holds an error (the first cause wins). Always returns -1, so: return
 * err_set(...). */
int err_set(struct err *err, enum err_class class, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of a text that is already there. Always returns -1. */
int err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *err);

static inline bool err_is_set(const struct err *err)
{
    return err->class != ERR_NONE;
}

/* The process exit code that belongs to a class (design: the exit code table). */
int err_exit_code(enum err_class class);

#endif
