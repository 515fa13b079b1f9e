#include "settings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "field.h"
#include "url.h"

const struct outbox_option http_options[] = {
    {"url", OUTBOX_OPT_STRING, OUTBOX_OPT_REQUIRED | OUTBOX_OPT_URL, NULL, NULL, 0, 0,
     "where messages go, a template: https://example.com/hooks/${channel}"},
    {"method", OUTBOX_OPT_CHOICE, 0, "POST", "POST|PUT|PATCH", 0, 0, "of the request"},
    {"headers", OUTBOX_OPT_MAP, OUTBOX_OPT_SECRET, "", NULL, 0, 0,
     "headers of every request; values are templates, such as ${id}"},
    {"bearer_token", OUTBOX_OPT_STRING, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0, "Authorization: Bearer ..."},
    {"username", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "of basic authentication"},
    {"password", OUTBOX_OPT_STRING, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0, "of basic authentication"},
    {"secret", OUTBOX_OPT_LIST, OUTBOX_OPT_SECRET, "", NULL, 0, 0,
     "signs as Standard Webhooks do: whsec_ and base64 of 24 to 64 bytes; several while keys are rotated"},
    {"cloudevents", OUTBOX_OPT_CHOICE, 0, "off", "off|binary|structured", 0, 0,
     "CloudEvents 1.0 content mode"},
    {"source", OUTBOX_OPT_STRING, 0, "/outbox/${channel}", NULL, 0, 0, "CloudEvents source, a template"},
    {"subject", OUTBOX_OPT_STRING, 0, "${key}", NULL, 0, 0,
     "CloudEvents subject, a template; none if it comes out empty"},
    {"http_version", OUTBOX_OPT_CHOICE, 0, "auto", "auto|1.1", 0, 0, "auto: HTTP/2 where TLS offers it"},
    {"max_in_flight", OUTBOX_OPT_INT, 0, "32", NULL, 1, 1000, "requests at once, per worker"},
    {"timeout", OUTBOX_OPT_DURATION_MS, 0, "5s", NULL, 10, 600000,
     "of one request; none starts later than publish_timeout minus this"},
    {"connect_timeout", OUTBOX_OPT_DURATION_MS, 0, "3s", NULL, 10, 600000, "of name, TCP and TLS"},
    {"max_idle", OUTBOX_OPT_DURATION_MS, 0, "10s", NULL, 0, 3600000,
     "connections idle for longer are not used again: stay below the receiver's keep-alive"},
    {"max_response_bytes", OUTBOX_OPT_BYTES, 0, "64KiB", NULL, 1, 1 << 30, "a longer answer is cut off"},
    {"deny_private", OUTBOX_OPT_BOOL, 0, "false", NULL, 0, 0,
     "refuse addresses that are private, loopback, link-local or otherwise not of the public internet"},
    {"hosts", OUTBOX_OPT_LIST, 0, "", NULL, 0, 0,
     "hosts that a message may be sent to, with * and ?; wanted where http.url takes the host from the "
     "message "
     "and "
     "credentials go along"},
    {"tls.ca_file", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "certificates to trust; default: the system's"},
    {"tls.cert_file", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "our certificate, PEM"},
    {"tls.key_file", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "its key, PEM"},
    {0},
};

int settings_error(struct outbox_error *error, enum outbox_error_kind kind, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error->kind = kind;
    (void)vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return -1;
}

static int bad(struct outbox_error *error, const char *name, const char *text)
{
    return settings_error(error, OUTBOX_ERROR_CONFIG, "http.%s: %s", name, text);
}

/* An option that is set to nothing is not set. */
static const char *or_null(const char *value)
{
    return value && value[0] != '\0' ? value : NULL;
}

/* Renders once with a message of our own: an unknown variable shows itself before the first real one. */
static bool is_template(const struct settings *settings, const char *pattern)
{
    static const struct outbox_message sample = {.size = sizeof sample,
                                                 .id = {"i", 1},
                                                 .channel = {"c", 1},
                                                 .type = {"t", 1},
                                                 .key = {"k", 1},
                                                 .reply_to = {"r", 1}};
    char out[TEMPLATE_MAX_BYTES];
    return settings->host->render(settings->host, pattern, &sample, out, sizeof out) >= 0;
}

static int check_templates(const struct settings *settings, struct outbox_error *error)
{
    static const char text[] = "is no template over ${channel} ${type} ${key} ${kind} ${id} ${reply_to}";
    if (!is_template(settings, settings->url)) {
        return bad(error, "url", text);
    }
    if (!is_template(settings, settings->source)) {
        return bad(error, "source", text);
    }
    if (!is_template(settings, settings->subject)) {
        return bad(error, "subject", text);
    }
    for (size_t at = 0; at < settings->header_count; at++) {
        const char *name = settings->header_names[at];
        const char *value = settings->header_values[at];
        if (!field_name_is_valid((struct outbox_bytes){name, strlen(name)}) ||
            !field_value_is_valid((struct outbox_bytes){value, strlen(value)})) {
            return bad(error, "headers", "a name is no token, or a value holds a control character");
        }
        if (field_is_ours((struct outbox_bytes){name, strlen(name)})) {
            return bad(error, "headers",
                       "a name is one that the backend sets itself, or that belongs to the connection");
        }
        if (!is_template(settings, value)) {
            return bad(error, "headers", text);
        }
    }
    return 0;
}

/* Else what stands there may be the beginning of a password that holds a '/', a '?' or a '#'. */
static bool has_port_or_none(const char *authority, size_t len)
{
    const char *end = authority + len;
    const char *host = authority;
    for (const char *at = authority; at < end; at++) {
        host = *at == '@' ? at + 1 : host;
    }
    const char *bracket = *host == '[' ? memchr(host, ']', (size_t)(end - host)) : NULL;
    const char *from = bracket ? bracket : host;
    const char *colon = memchr(from, ':', (size_t)(end - from));
    return !colon || memchr(colon, '$', (size_t)(end - colon)) ||
           colon + 1 + strspn(colon + 1, "0123456789") >= end;
}

/* "http" or "https" in front, and a host; what is behind may be anything until it is rendered. */
static int check_url(struct settings *settings, struct outbox_error *error)
{
    const char *authority = strstr(settings->url, "://");
    const char *variable = strstr(settings->url, "${");
    if (variable && (!authority || variable < authority + 3)) {
        settings->scheme_per_message = true;
        return 0; /* every message will be looked at */
    }
    if (strncmp(settings->url, "https://", 8) != 0 && strncmp(settings->url, "http://", 7) != 0) {
        return bad(error, "url", "must begin with https:// or http://");
    }
    size_t host_len = strcspn(authority + 3, "/?#");
    if (!has_port_or_none(authority + 3, host_len)) {
        return bad(error, "url",
                   "its port is no number: special characters of user name and password are written %XX");
    }
    for (size_t at = 0; at < host_len; at++) {
        if ((unsigned char)authority[3 + at] > 0x7e) {
            return bad(error, "url", "the host's name holds letters beyond ASCII: write it as xn--...");
        }
    }
    for (const char *at = variable; at && at < authority + 3 + host_len; at = strstr(at + 1, "${")) {
        settings->host_per_message = settings->host_per_message || strncmp(at, "${channel}", 10) != 0;
    }
    settings->one_host = !variable || variable >= authority + 3 + host_len;
    return host_len > 0 ? 0 : bad(error, "url", "names no host");
}

static bool has_credentials(const struct settings *settings)
{
    const char *authority = strstr(settings->url, "://");
    const char *user = authority ? strchr(authority + 3, '@') : NULL;
    return settings->authorization || settings->username || settings->cert_file ||
           settings->header_count > 0 || (user && user < authority + 3 + strcspn(authority + 3, "/?#"));
}

/* A message that names its host takes along whatever goes with every request. */
static int check_hosts(const struct settings *settings, struct outbox_error *error)
{
    char base[URL_MAX_BYTES];
    for (size_t at = 0; at < settings->host_count; at++) {
        if (strpbrk(settings->hosts[at], "[\\")) {
            return bad(error, "hosts", "a pattern holds '[' or '\\': only * and ? mean something");
        }
    }
    if (!settings->one_host) {
        return settings->host_count > 0 || !settings->credentials
                   ? 0
                   : bad(error, "url",
                         "takes its host from the message, and credentials or headers would go wherever one "
                         "says: name the hosts in http.hosts, or '*' for any");
    }
    const char *authority = strstr(settings->url, "://") + 3;
    size_t len = (size_t)(authority - settings->url) + strcspn(authority, "/?#");
    (void)snprintf(base, sizeof base, "%.*s", (int)(len < sizeof base ? len : 0), settings->url);
    int listed = settings->host_count > 0 ? url_is_listed(base, settings->hosts, settings->host_count) : 1;
    return listed == 1   ? 0
           : listed == 0 ? bad(error, "hosts", "does not name the host of http.url: nothing could be sent")
                         : settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
}

static int check_auth(const struct settings *settings, const char *bearer_token, struct outbox_error *error)
{
    if (bearer_token && (settings->username || settings->password)) {
        return bad(error, "bearer_token", "and http.username exclude each other");
    }
    if (!settings->username != !settings->password) {
        return bad(error, "username", "and http.password belong together");
    }
    if (bearer_token && !field_value_is_valid((struct outbox_bytes){bearer_token, strlen(bearer_token)})) {
        return bad(error, "bearer_token", "holds a control character");
    }
    if (!settings->cert_file != !settings->key_file) {
        return bad(error, "tls.cert_file", "and http.tls.key_file belong together");
    }
    return 0;
}

static int read_auth(struct settings *settings, const struct outbox_settings *from,
                     struct outbox_error *error)
{
    static const char head[] = "Authorization: Bearer ";
    const char *token = or_null(settings->host->get_string(from, "bearer_token"));
    if (check_auth(settings, token, error) != 0) {
        return -1;
    }
    if (token) {
        size_t bytes = sizeof head + strlen(token);
        settings->authorization = malloc(bytes);
        if (!settings->authorization) {
            return settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
        }
        (void)snprintf(settings->authorization, bytes, "%s%s", head, token);
    }
    settings->credentials = has_credentials(settings);
    return 0;
}

static int read_keys(struct settings *settings, const struct outbox_settings *from,
                     struct outbox_error *error)
{
    const char *const *secrets = NULL;
    settings->key_count = settings->host->get_list(from, "secret", &secrets);
    settings->keys = calloc(settings->key_count + 1, sizeof *settings->keys);
    if (!settings->keys) {
        return settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    if (settings->key_count > SIGNATURE_MAX_KEYS) {
        return bad(error, "secret", "more than 8 keys");
    }
    for (size_t at = 0; at < settings->key_count; at++) {
        if (signing_key_read(&settings->keys[at], secrets[at]) != 0) {
            return settings_error(error, OUTBOX_ERROR_CONFIG,
                                  "http.secret: entry %zu is not whsec_ and the base64 of 24 to 64 bytes",
                                  at + 1);
        }
    }
    return 0;
}

static enum cloudevents cloudevents_of(const char *word)
{
    return strcmp(word, "binary") == 0       ? CLOUDEVENTS_BINARY
           : strcmp(word, "structured") == 0 ? CLOUDEVENTS_STRUCTURED
                                             : CLOUDEVENTS_OFF;
}

static void read_values(struct settings *settings, const struct outbox_settings *from)
{
    const struct outbox_host *host = settings->host;
    settings->url = host->get_string(from, "url");
    settings->method = host->get_string(from, "method");
    settings->username = or_null(host->get_string(from, "username"));
    settings->password = or_null(host->get_string(from, "password"));
    settings->ca_file = or_null(host->get_string(from, "tls.ca_file"));
    settings->cert_file = or_null(host->get_string(from, "tls.cert_file"));
    settings->key_file = or_null(host->get_string(from, "tls.key_file"));
    settings->header_count =
        host->get_map(from, "headers", &settings->header_names, &settings->header_values);
    settings->cloudevents = cloudevents_of(host->get_string(from, "cloudevents"));
    settings->source = host->get_string(from, "source");
    settings->subject = host->get_string(from, "subject");
    settings->http_1_1 = strcmp(host->get_string(from, "http_version"), "1.1") == 0;
    settings->max_in_flight = (size_t)host->get_int(from, "max_in_flight");
    settings->timeout_ms = host->get_int(from, "timeout");
    settings->connect_timeout_ms = host->get_int(from, "connect_timeout");
    settings->max_idle_ms = host->get_int(from, "max_idle");
    settings->max_response_bytes = (size_t)host->get_int(from, "max_response_bytes");
    settings->deny_private = host->get_int(from, "deny_private") != 0;
    settings->host_count = host->get_list(from, "hosts", &settings->hosts);
}

int settings_new(struct settings **out, const struct outbox_host *host, const struct outbox_settings *from,
                 struct outbox_error *error)
{
    struct settings *settings = calloc(1, sizeof *settings);
    if (!settings) {
        return settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    settings->host = host;
    read_values(settings, from);
    if (check_url(settings, error) != 0 || check_templates(settings, error) != 0 ||
        read_auth(settings, from, error) != 0 || read_keys(settings, from, error) != 0 ||
        check_hosts(settings, error) != 0) {
        settings_free(settings);
        return -1;
    }
    *out = settings;
    return 0;
}

void settings_free(struct settings *settings)
{
    if (settings->keys) {
        signing_keys_clear(settings->keys, settings->key_count < SIGNATURE_MAX_KEYS ? settings->key_count
                                                                                    : SIGNATURE_MAX_KEYS);
    }
    free(settings->keys);
    free(settings->authorization);
    free(settings);
}
