/* field - HTTP header fields: what may stand in a name and a value (RFC 9110, sections 5.1, 5.5 and 5.6.2).
 */
#ifndef HTTP_FIELD_H
#define HTTP_FIELD_H

#include <stdbool.h>
#include <stddef.h>

#include "outbox_backend.h"

bool field_name_is_valid(struct outbox_bytes name);

/* No control character but the tab: a line break in a value would begin another field, or another request. */
bool field_value_is_valid(struct outbox_bytes value);

/* Without regard to case, and with '_' for '-'. */
bool field_is_named(struct outbox_bytes name, const char *other);

/* Fields that belong to the connection, to our own envelope or to authentication, that would make another
 * request of this one, or that proxies set for those behind them to believe: no message may set them. */
bool field_is_reserved(struct outbox_bytes name);

/* Those of them that not even the operator may set: the backend does, or the framing would break. */
bool field_is_ours(struct outbox_bytes name);

/*
 * A value as CloudEvents want it in a header (HTTP protocol binding 1.0, section 3.1.3.2): space, '"', '%'
 * and all beyond printable ASCII percent-encoded. The length, or -1 if it does not fit with its NUL.
 */
int field_encode(struct outbox_bytes value, char *out, size_t out_bytes);

#endif
