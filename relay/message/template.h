/* template - patterns over the fields of a message: ${channel} ${type} ${key} ${kind} ${id} ${reply_to}. */
#ifndef RELAY_TEMPLATE_H
#define RELAY_TEMPLATE_H

#include <stddef.h>

#include "base/err.h"
#include "outbox_backend.h"

/* NUL-terminates; the length, or -1 if it does not fit, holds a NUL byte or names an unknown variable. */
int template_render(const char *pattern, const struct outbox_message *message, char *out, size_t out_bytes);

const char *kind_name(enum outbox_kind kind);

#endif
