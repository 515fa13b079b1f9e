/* settings - the options of backend http, read and checked once. */
#ifndef HTTP_SETTINGS_H
#define HTTP_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outbox_backend.h"
#include "signature.h"

enum cloudevents { CLOUDEVENTS_OFF = 0, CLOUDEVENTS_BINARY, CLOUDEVENTS_STRUCTURED };

enum { URL_MAX_BYTES = 8192, TEMPLATE_MAX_BYTES = 4096 };

struct settings {
    const struct outbox_host *host;
    const char *url;       /* a template */
    bool one_host;         /* scheme, host and port are the same for every message */
    bool host_per_message; /* they depend on more than the channel */
    const char *method;
    char *authorization; /* a header line; NULL = none; likewise below */
    const char *username;
    const char *password;
    const char *ca_file;
    const char *cert_file;
    const char *key_file;
    const char *const *header_names;
    const char *const *header_values; /* templates */
    size_t header_count;
    struct signing_key *keys;
    size_t key_count;
    enum cloudevents cloudevents;
    const char *source;  /* template of CloudEvents' source */
    const char *subject; /* template of CloudEvents' subject */
    bool http_1_1;       /* do not offer HTTP/2 */
    size_t max_in_flight;
    int64_t timeout_ms;
    int64_t connect_timeout_ms;
    int64_t max_idle_ms;
    size_t max_response_bytes;
    bool deny_private;
    const char *const *hosts; /* patterns, of fnmatch(3); none = all */
    size_t host_count;
    bool credentials;        /* something secret goes along with every request */
    bool scheme_per_message; /* the whole URL is the message's */
};

extern const struct outbox_option http_options[];

/* *out is the caller's to free with settings_free(). -1 with *error filled. */
int settings_new(struct settings **out, const struct outbox_host *host, const struct outbox_settings *from,
                 struct outbox_error *error);
void settings_free(struct settings *settings);

/* Fills *error, always -1. */
int settings_error(struct outbox_error *error, enum outbox_error_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
