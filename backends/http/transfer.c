#include "transfer.h"

#include <ctype.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "address.h"

enum { HEADERS_MAX_BYTES = 256 << 10, CONNECTION_MAX_AGE_S = 3600 };

/* ---- what libcurl calls ---- */

/* Once in a process. */
static void warn_of_clear_text(const struct outbox_host *host)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told)) {
        host->log(
            host, OUTBOX_LOG_WARNING,
            "requests go to another host without TLS: whoever is on the way reads and changes them, tokens "
            "and passwords too; let http.url begin with https://");
    }
}

static curl_socket_t open_socket(void *object, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *transfer = object;
    (void)purpose;
    if (transfer->session->settings->deny_private && address_is_private(&address->addr)) {
        address_text(&address->addr, transfer->denied, sizeof transfer->denied);
        return CURL_SOCKET_BAD;
    }
    transfer->denied[0] = '\0'; /* a name may have several addresses, and this one will do */
    if (!transfer->tls && !address_is_loopback(&address->addr)) {
        warn_of_clear_text(transfer->session->settings->host);
    }
    curl_socket_t fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    if (fd >= 0 && sockets_add(&transfer->session->sockets, fd) != 0) {
        (void)close(fd);
        return CURL_SOCKET_BAD;
    }
    return fd;
}

/* Of a connection that may outlive the transfer that made it. */
static int close_socket(void *object, curl_socket_t fd)
{
    struct session *session = object;
    sockets_remove(&session->sockets, fd);
    return close(fd);
}

/* The connection is there, and the request is about to be sent. An answer that is there already is none to
 * it. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the prototype is libcurl's, curl_prereq_callback */
static int look_before_asking(void *object, char *peer_ip, char *local_ip, int peer_port, int local_port)
{
    struct transfer *transfer = object;
    (void)peer_ip;
    (void)local_ip;
    (void)peer_port;
    transfer->spoken_to =
        !sockets_are_quiet(&transfer->session->sockets, local_port, transfer->tls, &transfer->used);
    return transfer->spoken_to ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* "HTTP/1.1 503 Service Unavailable" -> 503; 0 if it is no status line. */
static long status_of_line(const char *line, size_t len)
{
    char text[32];
    const char *space = NULL;
    if (len < 12 || strncmp(line, "HTTP/", 5) != 0) {
        return 0;
    }
    (void)snprintf(text, sizeof text, "%.*s", (int)(len < sizeof text ? len : sizeof text - 1), line);
    space = strchr(text, ' ');
    return space ? strtol(space + 1, NULL, 10) : 0;
}

static void keep_retry_after(struct transfer *transfer, const char *line, size_t len)
{
    static const char name[] = "retry-after:";
    if (len < sizeof name || strncasecmp(line, name, sizeof name - 1) != 0) {
        return;
    }
    size_t from = sizeof name - 1;
    while (from < len && isspace((unsigned char)line[from])) {
        from++;
    }
    while (len > from && isspace((unsigned char)line[len - 1])) {
        len--;
    }
    (void)snprintf(transfer->retry_after, sizeof transfer->retry_after, "%.*s", (int)(len - from),
                   line + from);
}

/* One line of a header section; 1xx answers bring sections of their own in front of the final one. */
static size_t see_header(char *line, size_t size, size_t count, void *object)
{
    struct transfer *transfer = object;
    size_t len = size * count;
    long status = status_of_line(line, len);
    transfer->received += len;
    if (status != 0) {
        transfer->status = status;
        transfer->retry_after[0] = '\0';
    } else if (len <= 2 && transfer->status >= 200) {
        transfer->final_status = transfer->status;
    } else {
        keep_retry_after(transfer, line, len);
    }
    return transfer->received > HEADERS_MAX_BYTES ? 0 : len;
}

/* Keeps an excerpt; an answer without an end is cut off, and its status counts. */
static size_t see_body(const char *bytes, size_t size, size_t count, void *object)
{
    struct transfer *transfer = object;
    size_t len = size * count;
    for (size_t at = 0; at < len && transfer->excerpt_len < EXCERPT_BYTES; at++) {
        unsigned char byte = (unsigned char)bytes[at];
        transfer->excerpt[transfer->excerpt_len++] = (char)(byte < 0x20 || byte == 0x7f ? ' ' : byte);
    }
    transfer->excerpt[transfer->excerpt_len] = '\0';
    transfer->received += len;
    return transfer->received > transfer->session->settings->max_response_bytes ? 0 : len;
}

/* ---- what stays the same for every request ---- */

static CURLcode set_behaviour(CURL *easy, const struct settings *settings)
{
    CURLcode result = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    result = result ? result : curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_PROXY, "");
    result = result ? result
                    : curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                                       settings->http_1_1 ? (long)CURL_HTTP_VERSION_1_1
                                                          : (long)CURL_HTTP_VERSION_2TLS);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    result = result ? result
                    : curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)settings->connect_timeout_ms);
    result = result ? result
                    : curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, (long)(settings->max_idle_ms + 999) / 1000);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_MAX_AGE_S);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_USERAGENT, settings->host->client_name);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_POST, 1L);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, settings->method);
    if (!result && settings->max_idle_ms == 0) {
        result = curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    }
#if LIBCURL_VERSION_NUM >= 0x075700
    /* A name server that is silent must not make us wait for curl's resolver thread. */
    result = result ? result : curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
    return result;
}

/* A host's names are those that its authority calls so (subjectAltName, RFC 9525, 2 and 6.3). Where there are
 * none, libcurl would take the subject's common name for one. */
static int look_for_names(int so_far, X509_STORE_CTX *context)
{
    X509 *certificate = so_far == 1 && X509_STORE_CTX_get_error_depth(context) == 0
                            ? X509_STORE_CTX_get_current_cert(context)
                            : NULL;
    if (!certificate) {
        return so_far; /* refused already, or an authority's */
    }
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int at = 0; at < sk_GENERAL_NAME_num(names); at++) { /* -1 of none */
        int type = sk_GENERAL_NAME_value(names, at)->type;
        found |= type == GEN_DNS || type == GEN_IPADD;
    }
    GENERAL_NAMES_free(names);
    if (!found) {
        X509_STORE_CTX_set_error(context, X509_V_ERR_HOSTNAME_MISMATCH);
    }
    return found;
}

static CURLcode look_into_certificates(CURL *easy, void *context, void *nothing)
{
    (void)easy;
    (void)nothing;
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, look_for_names);
    return CURLE_OK;
}

/* What libcurl hands over is OpenSSL's only where it was built with that; other TLS libraries look by rules
 * of their own. */
static CURLcode set_look(CURL *easy)
{
    const char *library = curl_version_info(CURLVERSION_NOW)->ssl_version;
    bool known = library && strncmp(library, "OpenSSL/", 8) == 0;
    return known ? curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, look_into_certificates) : CURLE_OK;
}

static CURLcode set_identity(CURL *easy, const struct settings *settings)
{
    CURLcode result = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    result = result ? result : set_look(easy);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!result && settings->ca_file) {
        result = curl_easy_setopt(easy, CURLOPT_CAINFO, settings->ca_file);
    }
    if (!result && settings->cert_file) {
        result = curl_easy_setopt(easy, CURLOPT_SSLCERT, settings->cert_file);
        result = result ? result : curl_easy_setopt(easy, CURLOPT_SSLKEY, settings->key_file);
    }
    if (!result && settings->username) {
        result = curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        result = result ? result : curl_easy_setopt(easy, CURLOPT_USERNAME, settings->username);
        result = result ? result : curl_easy_setopt(easy, CURLOPT_PASSWORD, settings->password);
    }
    return result;
}

static CURLcode set_callbacks(CURL *easy, struct transfer *transfer)
{
    CURLcode result = curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, transfer->session);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, look_before_asking);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_PREREQDATA, transfer);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, see_header);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, see_body);
    result = result ? result : curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    return result;
}

int transfer_init(struct transfer *transfer, struct session *session)
{
    *transfer = (struct transfer){.session = session, .easy = curl_easy_init()};
    if (!transfer->easy) {
        return -1;
    }
    CURLcode result = set_behaviour(transfer->easy, session->settings);
    result = result ? result : set_identity(transfer->easy, session->settings);
    result = result ? result : set_callbacks(transfer->easy, transfer);
    if (result != CURLE_OK) {
        transfer_finish(transfer);
        return -1;
    }
    return 0;
}

void transfer_finish(struct transfer *transfer)
{
    transfer_reset(transfer);
    curl_easy_cleanup(transfer->easy);
    transfer->easy = NULL;
}

void transfer_reset(struct transfer *transfer)
{
    curl_slist_free_all(transfer->headers);
    free(transfer->body);
    *transfer = (struct transfer){.session = transfer->session, .easy = transfer->easy};
}

/* ---- what became of it ---- */

/* "https://host:port", without path, query, user name and password: they may be secret. */
static void describe_place(const struct transfer *transfer, char *out, size_t out_bytes)
{
    char *url = NULL;
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_EFFECTIVE_URL, &url);
    const char *authority = url ? strstr(url, "://") : NULL;
    if (!authority) {
        (void)snprintf(out, out_bytes, "the URL");
        return;
    }
    const char *host = authority + 3;
    size_t len = strcspn(host, "/?#");
    for (size_t at = 0; at < len; at++) {
        if (host[at] == '@') {
            host += at + 1;
            len -= at + 1;
            at = (size_t)-1;
        }
    }
    (void)snprintf(out, out_bytes, "%.*s://%.*s", (int)(authority - url), url, (int)len, host);
}

bool transfer_never_connected(const struct transfer *transfer, CURLcode result)
{
    curl_off_t started_us = 0;
    switch (result) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CIPHER:
        return true;
    case CURLE_OPERATION_TIMEDOUT: /* while connecting: the request had not begun */
        return curl_easy_getinfo(transfer->easy, CURLINFO_PRETRANSFER_TIME_T, &started_us) == CURLE_OK &&
               started_us == 0;
    default:
        return false;
    }
}

void transfer_note_version(const struct transfer *transfer)
{
    long version = 0;
    long port = 0;
    if (transfer->tls && curl_easy_getinfo(transfer->easy, CURLINFO_HTTP_VERSION, &version) == CURLE_OK &&
        version == CURL_HTTP_VERSION_2_0 &&
        curl_easy_getinfo(transfer->easy, CURLINFO_LOCAL_PORT, &port) == CURLE_OK) {
        sockets_set_multiplexed(&transfer->session->sockets, (int)port);
    }
}

bool transfer_sent_all(const struct transfer *transfer)
{
    curl_off_t sent = 0;
    return curl_easy_getinfo(transfer->easy, CURLINFO_SIZE_UPLOAD_T, &sent) == CURLE_OK &&
           (uint64_t)sent >= transfer->body_bytes;
}

void transfer_describe(const struct transfer *transfer, CURLcode result, char out[REASON_BYTES])
{
    char place[200];
    describe_place(transfer, place, sizeof place);
    if (transfer->denied[0] && transfer->final_status == 0) {
        (void)snprintf(out, REASON_BYTES,
                       "%s: its address %s is not of the public internet, and http.deny_private refuses such",
                       place, transfer->denied);
    } else if (transfer->spoken_to) {
        (void)snprintf(out, REASON_BYTES,
                       "%s sent something before it was asked: that would have passed for its answer", place);
    } else if (transfer->final_status >= 300 && transfer->final_status <= 399) {
        (void)snprintf(out, REASON_BYTES,
                       "%s answered %ld, a redirect, and none is followed: set http.url to the new place",
                       place, transfer->final_status);
    } else if (transfer->final_status >= 200 && transfer->final_status <= 299) {
        (void)snprintf(
            out, REASON_BYTES,
            "%s answered %ld before all of the %zu bytes were sent to it: it must read a request to its end",
            place, transfer->final_status, transfer->body_bytes);
    } else if (transfer->final_status != 0) {
        (void)snprintf(out, REASON_BYTES, "%s answered %ld%s%s", place, transfer->final_status,
                       transfer->excerpt_len > 0 ? ": " : "", transfer->excerpt);
    } else {
        /* curl says CURLE_OUT_OF_MEMORY of a header line beyond 100 kB, too */
        (void)snprintf(out, REASON_BYTES, "%s: %s", place,
                       result == CURLE_OK ? "the answer was cut off"
                       : result == CURLE_OUT_OF_MEMORY
                           ? "a header line of the answer is too long, or memory is short"
                           : curl_easy_strerror(result));
    }
}
