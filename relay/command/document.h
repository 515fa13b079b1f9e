/* document - a JSON document as the answer of a command. */
#ifndef RELAY_DOCUMENT_H
#define RELAY_DOCUMENT_H

#include <jansson.h>

#include "base/err.h"

/* To standard output, on a line of its own; `flags` of jansson besides JSON_COMPACT. -1 where memory was
 * short for the document (NULL), and if it cannot be written. */
int document_print(const json_t *document, size_t flags, struct err *err) MUST_CHECK;

#endif
