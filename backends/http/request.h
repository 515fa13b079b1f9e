/* request - a message as an HTTP request, checked before the wire. */
#ifndef HTTP_REQUEST_H
#define HTTP_REQUEST_H

#include "session.h"

/*
 * Sets URL, headers, body and timeout on the transfer's handle. The payload is borrowed until the request is
 * over. OUTBOX_UNSETTLED = ready to be sent; else the verdict, and why.
 */
enum outbox_verdict request_prepare(struct transfer *transfer, const struct outbox_message *message,
                                    int64_t timeout_ms, char reason[REASON_BYTES]);

/* Is it the name of an entry of http.headers? */
bool request_is_configured(const struct settings *settings, struct outbox_bytes name);

#endif
