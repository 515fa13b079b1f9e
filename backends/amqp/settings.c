#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

const struct outbox_option amqp_options[] = {
    {"url", OUTBOX_OPT_LIST, OUTBOX_OPT_URL, "amqp://guest:guest@localhost/", NULL, 0, 0,
     "brokers, tried in turn: amqp://user:password@host:port/vhost, or amqps:// for TLS"},
    {"exchange", OUTBOX_OPT_STRING, 0, "${channel}", NULL, 0, 0, "exchange of events"},
    {"routing_key", OUTBOX_OPT_STRING, 0, "${type}", NULL, 0, 0, "routing key of events"},
    {"command_exchange", OUTBOX_OPT_STRING, 0, "", NULL, 0, 0,
     "exchange of commands and replies; empty = the default exchange"},
    {"command_routing_key", OUTBOX_OPT_STRING, 0, "${channel}", NULL, 0, 0,
     "routing key of commands; a reply's is its reply_to"},
    {"declare", OUTBOX_OPT_CHOICE, 0, "passive", "passive|ensure", 0, 0,
     "passive: an exchange must exist; ensure: create it"},
    {"exchange_type", OUTBOX_OPT_CHOICE, 0, "topic", "topic|direct|fanout|headers", 0, 0,
     "of exchanges that ensure creates"},
    {"unroutable", OUTBOX_OPT_CHOICE, 0, "fail", "fail|accept", 0, 0,
     "accept: an event that no queue wants is done"},
    {"app_id", OUTBOX_OPT_STRING, 0, "outbox-relay", NULL, 0, 0, "property app_id"},
    {"allowed_headers", OUTBOX_OPT_LIST, 0, "", NULL, 0, 0,
     "headers with a meaning to the broker (x-...) that may pass"},
    {"channels", OUTBOX_OPT_LIST, 0, "", NULL, 0, 0,
     "channels that may be sent, with * and ?; of a reply also its reply_to; others become dead letters; "
     "empty: "
     "all"},
    {"heartbeat", OUTBOX_OPT_DURATION_MS, 0, "10s", NULL, 1000, 600000,
     "of the connection, in whole seconds"},
    {"max_unconfirmed", OUTBOX_OPT_INT, 0, "1000", NULL, 1, 65535, "messages in flight per session"},
    {"max_message_bytes", OUTBOX_OPT_BYTES, 0, "0", NULL, 0, 536870912,
     "larger payloads are dead letters; 0: what the broker's version takes, 16MiB from RabbitMQ 4 on, else "
     "128MiB"},
    {"tls.ca_file", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "certificates to trust; default: the system's"},
    {"tls.cert_file", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "our certificate, PEM"},
    {"tls.key_file", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "its key, PEM"},
    {0},
};

static int bad(struct outbox_error *error, const char *text)
{
    error->kind = OUTBOX_ERROR_CONFIG;
    (void)snprintf(error->text, sizeof error->text, "%s", text);
    return -1;
}

/* Renders once with a message of our own: an unknown variable shows itself before the first real one. */
static int check_template(const struct settings *settings, const char *name, const char *pattern,
                          struct outbox_error *error)
{
    static const struct outbox_message sample = {.size = sizeof sample,
                                                 .id = {"i", 1},
                                                 .channel = {"c", 1},
                                                 .type = {"t", 1},
                                                 .key = {"k", 1},
                                                 .reply_to = {"r", 1}};
    char out[256];
    char text[300];
    if (settings->host->render(settings->host, pattern, &sample, out, sizeof out) >= 0) {
        return 0;
    }
    (void)snprintf(text, sizeof text,
                   "amqp.%s: '%.100s' is no template over ${channel} ${type} ${key} ${kind} ${id} "
                   "${reply_to} of at most 255 bytes",
                   name, pattern);
    return bad(error, text);
}

static bool has_other_variables(const char *pattern)
{
    for (const char *at = strstr(pattern, "${"); at; at = strstr(at + 1, "${")) {
        if (strncmp(at, "${channel}", 10) != 0) {
            return true;
        }
    }
    return false;
}

/* Where anything but the channel says which exchange it is, or on the default exchange which queue. */
static bool leads_elsewhere(const char *exchange, const char *routing_key)
{
    return has_other_variables(exchange) || (exchange[0] == '\0' && has_other_variables(routing_key));
}

/* The list names channels: it must be they that say where messages go. */
static int check_channels(const struct settings *settings, struct outbox_error *error)
{
    for (size_t at = 0; at < settings->channel_count; at++) {
        if (strpbrk(settings->channels[at], "[\\")) {
            return bad(error, "amqp.channels: a pattern holds '[' or '\\': only * and ? mean something");
        }
    }
    if (settings->channel_count > 0 &&
        (leads_elsewhere(settings->exchange, settings->routing_key) ||
         leads_elsewhere(settings->command_exchange, settings->command_routing_key))) {
        return bad(
            error,
            "amqp.channels would not say where messages go: an exchange, or a queue by the default exchange, "
            "comes from something else than ${channel}");
    }
    return 0;
}

static int check_urls(const struct settings *settings, struct outbox_error *error)
{
    if (settings->url_count == 0) {
        return bad(error, "amqp.url is empty: name at least one broker");
    }
    for (size_t at = 0; at < settings->url_count; at++) {
        struct amqp_connection_info info;
        char *copy = strdup(settings->urls[at]); /* the parser writes into it */
        int status = copy ? amqp_parse_url(copy, &info) : AMQP_STATUS_NO_MEMORY;
        free(copy);
        if (strchr(settings->urls[at], '?')) {
            char text[200];
            (void)snprintf(text, sizeof text,
                           "amqp.url: entry %zu has a query ('?...'), which means nothing here: such "
                           "settings are options "
                           "of their own, as amqp.heartbeat",
                           at + 1);
            return bad(error, text);
        }
        if (status != AMQP_STATUS_OK) {
            char text[160];
            (void)snprintf(text, sizeof text,
                           "amqp.url: entry %zu is not amqp://user:password@host:port/vhost (encode special "
                           "characters as %%XX)",
                           at + 1);
            return bad(error, text);
        }
    }
    return 0;
}

/* An option that is set to nothing is not set. */
static const char *or_null(const char *value)
{
    return value && value[0] != '\0' ? value : NULL;
}

int settings_read(struct settings *settings, const struct outbox_host *host,
                  const struct outbox_settings *from, struct outbox_error *error)
{
    *settings = (struct settings){
        .host = host,
        .exchange = host->get_string(from, "exchange"),
        .routing_key = host->get_string(from, "routing_key"),
        .command_exchange = host->get_string(from, "command_exchange"),
        .command_routing_key = host->get_string(from, "command_routing_key"),
        .exchange_type = host->get_string(from, "exchange_type"),
        .app_id = host->get_string(from, "app_id"),
        .ca_file = or_null(host->get_string(from, "tls.ca_file")),
        .cert_file = or_null(host->get_string(from, "tls.cert_file")),
        .key_file = or_null(host->get_string(from, "tls.key_file")),
        .declare_ensures = strcmp(host->get_string(from, "declare"), "ensure") == 0,
        .unroutable_accepted = strcmp(host->get_string(from, "unroutable"), "accept") == 0,
        .heartbeat_s = host->get_int(from, "heartbeat") / 1000,
        .max_unconfirmed = host->get_int(from, "max_unconfirmed"),
        .max_message_bytes = host->get_int(from, "max_message_bytes"),
    };
    settings->url_count = host->get_list(from, "url", &settings->urls);
    settings->allowed_header_count = host->get_list(from, "allowed_headers", &settings->allowed_headers);
    settings->channel_count = host->get_list(from, "channels", &settings->channels);
    if ((settings->cert_file == NULL) != (settings->key_file == NULL)) {
        return bad(error, "amqp.tls.cert_file and amqp.tls.key_file go together");
    }
    if (strlen(settings->app_id) > 255) {
        return bad(error, "amqp.app_id is longer than 255 bytes");
    }
    if (check_template(settings, "exchange", settings->exchange, error) != 0 ||
        check_template(settings, "routing_key", settings->routing_key, error) != 0 ||
        check_template(settings, "command_exchange", settings->command_exchange, error) != 0 ||
        check_template(settings, "command_routing_key", settings->command_routing_key, error) != 0) {
        return -1;
    }
    return check_channels(settings, error) != 0 ? -1 : check_urls(settings, error);
}
