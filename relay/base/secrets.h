/*
 * secrets - what no output may hold, whoever says it.
 *
 * A receiver that repeats our headers, a library that quotes the address it was given, a broker that tells
 * what it refused: their words reach logs, tables and terminals. The values of secret options are made known
 * here once, and what others say is copied without them. Thread-safe.
 */
#ifndef RELAY_SECRETS_H
#define RELAY_SECRETS_H

#include "base/bytes.h"

/* Copies it; one that is shorter than 4 bytes is left out: it stands in every other word. */
void secrets_add(struct bytes secret);

/* The password of a URL, as it is written and decoded, unless it is the user's name again; and what is long
 * in path and query, outside of ${...}. */
void secrets_add_url(const char *url);

/* A URL as people may see it: without user and password, and without what the path says behind its first
 * segment and the query says at all, but for ${...}: services put tokens there. */
void secrets_show_url(struct text *out, const char *url);

/* printable_copy() of `from`, with "***" in place of each secret, of what follows "Basic " or "Bearer ", and
 * of four bytes or more of a secret with which the text ends. */
void secrets_copy(char *out, size_t out_bytes, struct bytes from);

/* Overwrites and forgets them all: at the program's end. */
void secrets_clear(void);

#endif
