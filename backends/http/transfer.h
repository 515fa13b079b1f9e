/* transfer - one curl handle, set up once, and what it hears of an answer. */
#ifndef HTTP_TRANSFER_H
#define HTTP_TRANSFER_H

#include "session.h"

/* Gives it a handle with everything that stays the same. -1: this libcurl cannot do what is asked for. */
int transfer_init(struct transfer *transfer, struct session *session);
void transfer_finish(struct transfer *transfer); /* accepts a zeroed one */

/* Forgets the last request. */
void transfer_reset(struct transfer *transfer);

/* After an answer: connections of HTTP/2 may speak at any time. */
void transfer_note_version(const struct transfer *transfer);

/* Was the whole body sent? A receiver may answer, and end a request, sooner (RFC 9113, section 8.1). */
bool transfer_sent_all(const struct transfer *transfer);

/*
 * Why it is not confirmed: "https://host:port answered 503: excerpt", or what went wrong before an answer. Of
 * a 2xx, that it came too early.
 */
void transfer_describe(const struct transfer *transfer, CURLcode result, char out[REASON_BYTES]);

/* Did it fail before a byte of the request can have reached the other side? */
bool transfer_never_connected(const struct transfer *transfer, CURLcode result);

#endif
