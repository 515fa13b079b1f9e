/* status - what an HTTP answer says about the message (design: section 8); pure. */
#ifndef HTTP_STATUS_H
#define HTTP_STATUS_H

#include <stdint.h>

#include "outbox_backend.h"

/* The verdict of a final status code, 100 to 599 and whatever else receivers invent. */
enum outbox_verdict status_verdict(long code);

/*
 * Retry-After (RFC 9110, section 10.2.3): seconds, or a date, in milliseconds from now, clamped to 1 s .. 24
 * h. 0 if there is none to understand.
 */
int64_t status_retry_after_ms(const char *value, int64_t now_s);

#endif
