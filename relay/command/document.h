/* document - a JSON document as the answer of a command. */
#ifndef RELAY_DOCUMENT_H
#define RELAY_DOCUMENT_H

#include <jansson.h>

/* To standard output, on a line of its own; `flags` of jansson besides JSON_COMPACT. -1 if it cannot be
 * written. */
int document_print(const json_t *document, size_t flags);

#endif
