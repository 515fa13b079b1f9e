/* settings - the options of the amqp backend, read once. */
#ifndef AMQP_SETTINGS_H
#define AMQP_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outbox_backend.h"

struct settings {
    const struct outbox_host *host;
    const char *const *urls;
    size_t url_count;
    const char *exchange;
    const char *routing_key;
    const char *command_exchange;
    const char *command_routing_key;
    const char *exchange_type;
    const char *app_id;
    const char *const *allowed_headers;
    size_t allowed_header_count;
    const char *const *channels; /* patterns, of fnmatch(3); none = all */
    size_t channel_count;
    const char *ca_file;
    const char *cert_file;
    const char *key_file;
    bool declare_ensures;     /* amqp.declare: ensure */
    bool unroutable_accepted; /* amqp.unroutable: accept; events only */
    int64_t heartbeat_s;
    int64_t max_unconfirmed;
    int64_t max_message_bytes; /* 0 = what the broker takes */
};

extern const struct outbox_option amqp_options[];

/* Borrows from the host's settings. -1 with *error filled when a value makes no sense. */
int settings_read(struct settings *settings, const struct outbox_host *host,
                  const struct outbox_settings *from, struct outbox_error *error);

#endif
