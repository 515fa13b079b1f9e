/* bytes - views into memory that somebody else owns, and text buffers that know their maximum. */
#ifndef RELAY_BYTES_H
#define RELAY_BYTES_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A view: may hold NUL bytes, is not NUL-terminated, owns nothing. */
struct bytes {
    const char *ptr;
    size_t len;
};

struct bytes bytes_of(const char *text);
bool bytes_equal(struct bytes a, struct bytes b);

/* For hash tables inside the process only: its key is new in each, so that nobody can choose names for it. */
uint64_t bytes_hash(struct bytes view);

/* The same with a key of one's own: SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF").
 */
uint64_t bytes_hash_by(const uint64_t key[2], struct bytes view);

/*
 * A NUL-terminated text that grows up to a maximum given at birth. Appending past the maximum sets `overflow`
 * and changes nothing; one check at the end is enough.
 */
struct text {
    char *ptr;
    size_t len;
    size_t capacity;
    size_t max_bytes;
    bool overflow; /* also set when memory is short */
};

void text_init(struct text *text, size_t max_bytes);
void text_finish(struct text *text); /* accepts a zeroed one */
void text_clear(struct text *text);
void text_add(struct text *text, const char *more);
void text_add_bytes(struct text *text, struct bytes more);
void text_add_number(struct text *text, int64_t number); /* decimal; much cheaper than text_addf */
void text_addf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_addv(struct text *text, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* In double quotes, with quotes and backslashes escaped: an element of an array literal (PostgreSQL
 * manual 8.15.6). */
void text_add_quoted(struct text *text, struct bytes value);

/* Never NULL. */
const char *text_get(const struct text *text);
struct bytes text_view(const struct text *text);

/* A pattern with * and ? as an SQL LIKE pattern. */
void text_add_like(struct text *text, const char *pattern);

#endif
