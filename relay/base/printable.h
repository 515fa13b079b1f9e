/*
 * printable - text that somebody else wrote, made fit to be shown.
 *
 * A producer's names, a broker's or a receiver's words, a plugin's lines: what moves a cursor, ends a line,
 * turns the direction of reading or cannot be seen at all is written as an escape of JSON (RFC 8259, section
 * 7) - "\n", "\u009b" - and bytes that are no UTF-8 as U+FFFD. So a terminal shows names and nothing else,
 * and JSON that was escaped is still the same JSON. Thread-safe.
 */
#ifndef RELAY_PRINTABLE_H
#define RELAY_PRINTABLE_H

#include <stddef.h>

#include "base/bytes.h"

enum {
    PRINTABLE_ESCAPE_BYTES = 13,        /* two times \uXXXX, and NUL */
    PRINTABLE_NAME_BYTES = 255 * 6 + 1, /* the longest name of a channel, whatever it holds */
};

/* How many bytes from `at` on may be shown as they are. */
size_t printable_run(struct bytes from, size_t at);

/* For the character at `at`, where such a run has ended: its escape, and how many bytes of `from` it has. */
size_t printable_escape(struct bytes from, size_t at, char escape[PRINTABLE_ESCAPE_BYTES]);

/* NUL-terminated, cut between characters where it does not fit. */
void printable_copy(char *out, size_t out_bytes, struct bytes from);

void text_add_printable(struct text *text, struct bytes value);

/* A JSON string with its quotes. */
void text_add_json(struct text *text, struct bytes value);

#endif
