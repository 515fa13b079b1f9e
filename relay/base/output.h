/*
 * output - the one way to standard output and standard error.
 *
 * Whatever is put into a line is made printable here (base/printable.h), so no name, error or word of
 * somebody else begins a line of its own, or speaks to the terminal. Whether the stream took it is for the
 * program's end to tell, by ferror(3).
 */
#ifndef RELAY_OUTPUT_H
#define RELAY_OUTPUT_H

#include <stdio.h>

#include "base/bytes.h"

/* One line; its end is added. */
void output_line(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Text of many lines that was put together elsewhere, from pieces that hold no line feeds of others. */
void output_text(FILE *to, struct bytes text);

/* A line that the next one overwrites, for terminals. */
void output_passing(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A piece of a line. */
void output_piece(FILE *to, struct bytes piece);

#endif
