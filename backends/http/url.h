/*
 * url - a template filled so that no message can leave its place in the URL (RFC 3986).
 *
 * In path and query, what comes from a message is percent-encoded; in the authority it may hold letters,
 * digits, '.' and
 * '-' only. Where the scheme itself comes from a message, the whole URL does, and is taken as it is.
 */
#ifndef HTTP_URL_H
#define HTTP_URL_H

#include <stddef.h>

#include "outbox_backend.h"

/* NULL, or what is wrong with this message, in a sentence. */
const char *url_render(const struct outbox_host *host, const char *pattern,
                       const struct outbox_message *message, char *out, size_t out_bytes);

/* Is the host of this URL, or its host:port, one of the patterns (fnmatch(3), whatever the case)? Read by
 * libcurl, which is what will follow it; an IPv6 address without its brackets. 1 if so, 0 if not, -1 if
 * memory is short. */
int url_is_listed(const char *url, const char *const *hosts, size_t count);

/* The pattern with "***" for what it says itself behind the first segment of the path, and for a first one
 * that looks like a token: services put theirs there. For people to see. */
void url_hide(const char *pattern, char *out, size_t out_bytes);

#endif
