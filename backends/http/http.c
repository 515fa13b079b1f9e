/*
 * http - webhooks: one request per message, many in flight, on libcurl's multi interface.
 *
 * A message counts as CONFIRMED when the header section of a final 2xx answer is complete, and all of it was
 * sent.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish.h"
#include "request.h"
#include "transfer.h"
#include "url.h"

static int http_open(void **backend, const struct outbox_host *host, const struct outbox_settings *from,
                     struct outbox_error *error)
{
    struct settings *settings = NULL;
    if (settings_new(&settings, host, from, error) != 0) {
        return -1;
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        settings_free(settings);
        return settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "libcurl cannot be initialised");
    }
    *backend = settings;
    return 0;
}

static void http_close(void *backend)
{
    curl_global_cleanup();
    settings_free(backend);
}

static void http_session_free(void *object)
{
    struct session *session = object;
    for (size_t at = 0; at < session->created; at++) {
        transfer_finish(&session->transfers[at]);
    }
    (void)curl_multi_cleanup(session->multi);
    sockets_finish(&session->sockets);
    (void)pthread_mutex_destroy(&session->lock);
    free(session->transfers);
    free(session);
}

static int http_session_new(void *backend, void **out, struct outbox_error *error)
{
    const struct settings *settings = backend;
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
    }
    session->settings = settings;
    (void)pthread_mutex_init(&session->lock, NULL);
    session->multi = session_multi_new(settings);
    session->transfers = calloc(settings->max_in_flight, sizeof *session->transfers);
    if (!session->multi || !session->transfers) {
        http_session_free(session);
        return settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "libcurl's multi handle cannot be made");
    }
    *out = session;
    return 0;
}

/* ---- connect: where all messages go to one host, is it there? ---- */

/* "https://user:password@host:port/" of the template. */
static int set_base_url(CURL *easy, const char *url)
{
    size_t len = strcspn(strstr(url, "://") + 3, "/?#") + (size_t)(strstr(url, "://") + 3 - url);
    char *base = strndup(url, len);
    int result = base && curl_easy_setopt(easy, CURLOPT_URL, base) == CURLE_OK ? 0 : -1;
    free(base);
    return result;
}

static int connect_failed(const struct transfer *transfer, CURLcode result, struct outbox_error *error)
{
    char reason[REASON_BYTES];
    bool ours = transfer->denied[0] || result == CURLE_SSL_CERTPROBLEM ||
                result == CURLE_SSL_CACERT_BADFILE || result == CURLE_URL_MALFORMAT ||
                result == CURLE_UNSUPPORTED_PROTOCOL;
    transfer_describe(transfer, result, reason);
    return settings_error(error, ours ? OUTBOX_ERROR_CONFIG : OUTBOX_ERROR_UNAVAILABLE, "%s", reason);
}

/* Until the one handle is done, the deadline, or an interrupt. */
static int await_connect(struct session *session, const struct transfer *transfer, int64_t deadline_ms,
                         struct outbox_error *error)
{
    int running = 1;
    while (curl_multi_perform(session->multi, &running) == CURLM_OK && running > 0) {
        int64_t left_ms = session_left_ms(deadline_ms);
        if (left_ms == 0 || atomic_load(&session->interrupted)) {
            return connect_failed(transfer, CURLE_OPERATION_TIMEDOUT, error);
        }
        (void)curl_multi_poll(session->multi, NULL, 0, left_ms < 1000 ? (int)left_ms : 1000, NULL);
    }
    int more = 0;
    CURLMsg *message = curl_multi_info_read(session->multi, &more);
    CURLcode result = message ? message->data.result : CURLE_FAILED_INIT;
    return result == CURLE_OK ? 0 : connect_failed(transfer, result, error);
}

static int http_connect(void *object, int64_t deadline_ms, struct outbox_error *error)
{
    struct session *session = object;
    struct transfer transfer;
    atomic_store(&session->interrupted, false);
    if (!session->multi) {
        session_drop_connections(session); /* memory was short when the last ones were dropped */
    }
    if (session->multi && !session->settings->one_host) {
        return 0; /* every message may have a destination of its own: each channel rests alone */
    }
    if (!session->multi || transfer_init(&transfer, session) != 0) {
        return settings_error(error, OUTBOX_ERROR_UNAVAILABLE,
                              "out of memory, or this libcurl lacks what is asked for");
    }
    int result = -1;
    transfer.tls = strncmp(session->settings->url, "https:", 6) == 0;
    if (set_base_url(transfer.easy, session->settings->url) != 0 ||
        curl_easy_setopt(transfer.easy, CURLOPT_CONNECT_ONLY, 1L) != CURLE_OK ||
        curl_easy_setopt(transfer.easy, CURLOPT_PREREQFUNCTION, NULL) != CURLE_OK || /* nothing is asked */
        curl_multi_add_handle(session->multi, transfer.easy) != CURLM_OK) {
        (void)settings_error(error, OUTBOX_ERROR_UNAVAILABLE,
                             "the connection could not be started: out of memory");
    } else {
        result = await_connect(session, &transfer, deadline_ms, error);
        (void)curl_multi_remove_handle(session->multi, transfer.easy);
    }
    transfer_finish(&transfer);
    return result;
}

/* Idle connections are the multi handle's: the next connect() begins with none. */
static void http_disconnect(void *object)
{
    struct session *session = object;
    for (size_t at = 0; at < session->created; at++) {
        transfer_finish(&session->transfers[at]);
    }
    session->created = 0;
    session->free_list = NULL;
    session_drop_connections(session);
}

static enum outbox_session_state http_publish(void *object, struct outbox_batch *batch, int64_t deadline_ms,
                                              struct outbox_error *error)
{
    return publish_batch(object, batch, deadline_ms, error);
}

static void http_interrupt(void *object)
{
    struct session *session = object;
    atomic_store(&session->interrupted, true);
    (void)pthread_mutex_lock(&session->lock);
    if (session->multi) {
        (void)curl_multi_wakeup(session->multi);
    }
    (void)pthread_mutex_unlock(&session->lock);
}

/* The URL without user and password, and the names of the header fields, without those of http.headers:
 * values may be secrets, and names pieces of them. */
static void describe(const struct transfer *transfer, const char *url, char *out, size_t out_bytes)
{
    const char *authority = strstr(url, "://");
    authority = authority ? authority + 3 : url;
    size_t len = strcspn(authority, "/?#");
    const char *host = authority;
    for (size_t at = 0; at < len; at++) {
        host = authority[at] == '@' ? &authority[at + 1] : host;
    }
    size_t shown = strcspn(host, "?#"); /* a query may hold a token */
    size_t used =
        (size_t)snprintf(out, out_bytes, "%s %.*s%.*s%s, header fields", transfer->session->settings->method,
                         (int)(authority - url), url, (int)shown, host, host[shown] ? "?..." : "");
    for (const struct curl_slist *field = transfer->headers; field && used < out_bytes; field = field->next) {
        size_t name_len = strcspn(field->data, ":;");
        bool sent =
            strcmp(field->data + name_len, ":") != 0; /* "NAME:" takes one away that curl would send */
        bool hidden =
            request_is_configured(transfer->session->settings, (struct outbox_bytes){field->data, name_len});
        used += sent && !hidden
                    ? (size_t)snprintf(out + used, out_bytes - used, "%s %.*s",
                                       field == transfer->headers ? "" : ",", (int)name_len, field->data)
                    : 0;
    }
    size_t configured = transfer->session->settings->header_count;
    if (configured > 0 && used < out_bytes) {
        (void)snprintf(out + used, out_bytes - used, ", and %zu of http.headers", configured);
    }
}

static int http_explain(void *backend, const struct outbox_message *message, char *out, size_t out_bytes,
                        struct outbox_error *error)
{
    const struct settings *settings = backend;
    struct session session = {.settings = settings};
    struct transfer transfer = {.session = &session, .easy = curl_easy_init()};
    char reason[REASON_BYTES] = "out of memory";
    char pattern[TEMPLATE_MAX_BYTES];
    char url[TEMPLATE_MAX_BYTES];
    url_hide(settings->url, pattern, sizeof pattern);
    const char *fault = url_render(settings->host, pattern, message, url, sizeof url);
    bool good = transfer.easy && !fault && request_prepare(&transfer, message, 1, reason) == OUTBOX_UNSETTLED;
    if (good) {
        describe(&transfer, url, out, out_bytes);
    }
    curl_slist_free_all(transfer.headers);
    free(transfer.body);
    curl_easy_cleanup(transfer.easy);
    return good ? 0 : settings_error(error, OUTBOX_ERROR_CONFIG, "%s", fault ? fault : reason);
}

static void http_library(char *out, size_t out_bytes)
{
    const curl_version_info_data *info = curl_version_info(CURLVERSION_NOW);
    (void)snprintf(out, out_bytes, "libcurl %s, %s", info->version,
                   info->ssl_version ? info->ssl_version : "without TLS");
}

static const struct outbox_backend http_backend = {
    .size = sizeof(struct outbox_backend),
    .name = "http",
    .version = "1.0.0",
    .options = http_options,
    .open = http_open,
    .close = http_close,
    .session_new = http_session_new,
    .session_free = http_session_free,
    .connect = http_connect,
    .disconnect = http_disconnect,
    .publish = http_publish,
    .interrupt = http_interrupt,
    .explain = http_explain,
    .library = http_library,
};

OUTBOX_BACKEND("http", "1.0.0", http_backend);
