#define _GNU_SOURCE /* F_DUPFD_CLOEXEC */
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dial.h"

enum { FRAME_MAX_BYTES = 131072, FIRST_SLICE_MS = 1000 };

/* ---- interrupting ---- */

static int allow_interrupt(struct session *session, struct outbox_error *error)
{
    (void)pthread_mutex_lock(&session->interrupt_lock);
    session->interrupt_fd = fcntl(amqp_get_sockfd(session->connection), F_DUPFD_CLOEXEC, 0);
    bool interrupted = session->interrupted;
    (void)pthread_mutex_unlock(&session->interrupt_lock);
    if (interrupted || session->interrupt_fd < 0) {
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE,
                             interrupted ? "interrupted while connecting" : "no descriptor is left");
    }
    return 0;
}

static void set_interrupted(struct session *session, bool interrupted)
{
    (void)pthread_mutex_lock(&session->interrupt_lock);
    session->interrupted = interrupted;
    (void)pthread_mutex_unlock(&session->interrupt_lock);
}

void connection_interrupt(struct session *session)
{
    (void)pthread_mutex_lock(&session->interrupt_lock);
    session->interrupted = true;
    if (session->interrupt_fd >= 0) {
        (void)shutdown(session->interrupt_fd, SHUT_RDWR);
    }
    (void)pthread_mutex_unlock(&session->interrupt_lock);
}

/* ---- socket ---- */

/* A host's names are those that its authority calls so (subjectAltName, RFC 9525, 2 and 6.3). Where there are
 * none, librabbitmq would take the subject's common name for one. */
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

static int configure_tls(struct session *session, amqp_socket_t *socket, struct outbox_error *error)
{
    const struct settings *settings = session->settings;
    SSL_CTX *context = amqp_ssl_socket_get_context(socket);
    amqp_ssl_socket_set_verify_hostname(socket, 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, look_for_names);
    if (amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST) != AMQP_STATUS_OK) {
        return session_error(error, OUTBOX_ERROR_CONFIG, "TLS 1.2 is not available in this librabbitmq");
    }
    /* librabbitmq has a call for the system's certificates only since 0.14. */
    if (settings->ca_file ? amqp_ssl_socket_set_cacert(socket, settings->ca_file) != AMQP_STATUS_OK
                          : SSL_CTX_set_default_verify_paths(context) != 1) {
        return session_error(error, OUTBOX_ERROR_CONFIG, "amqp.tls.ca_file: cannot read certificates from %s",
                             settings->ca_file ? settings->ca_file : "the system's store");
    }
    if (settings->cert_file &&
        amqp_ssl_socket_set_key(socket, settings->cert_file, settings->key_file) != AMQP_STATUS_OK) {
        return session_error(error, OUTBOX_ERROR_CONFIG, "amqp.tls: cannot use certificate %s with key %s",
                             settings->cert_file, settings->key_file);
    }
    return 0;
}

/* A silent peer must not hold unsent data longer than two heartbeats (tcp(7), TCP_USER_TIMEOUT). */
static void bound_silence(const struct session *session)
{
    unsigned timeout_ms = (unsigned)session->settings->heartbeat_s * 2000;
    (void)setsockopt(amqp_get_sockfd(session->connection), IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms,
                     sizeof timeout_ms);
}

/* librabbitmq takes no socket of ours for TLS, and cannot be interrupted: so it gets short times first, then
 * longer ones. */
static int open_tls(struct session *session, amqp_socket_t *socket, const struct amqp_connection_info *broker,
                    int64_t deadline_ms, struct outbox_error *error)
{
    int status = AMQP_STATUS_TIMEOUT;
    int64_t slice_ms = FIRST_SLICE_MS;
    if (dial_knows(session, broker->host, broker->port, deadline_ms, error) != 0) {
        return -1;
    }
    while (status == AMQP_STATUS_TIMEOUT && session_now_ms() < deadline_ms &&
           !session_is_interrupted(session)) {
        int64_t until_ms = session_now_ms() + slice_ms;
        struct timeval left = session_left(until_ms < deadline_ms ? until_ms : deadline_ms);
        status = amqp_socket_open_noblock(socket, broker->host, broker->port, &left);
        slice_ms *= 2;
    }
    return status == AMQP_STATUS_OK
               ? 0
               : session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot connect to %s:%d: %s", broker->host,
                               broker->port, amqp_error_string2(status));
}

/* Once in a process. */
static void warn_of_clear_text(const struct outbox_host *host)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told)) {
        host->log(
            host, OUTBOX_LOG_WARNING,
            "the broker is on another host, and the connection without TLS: whoever is on the way reads the "
            "password and all messages, and changes them; let amqp.url begin with amqps://");
    }
}

static int open_socket(struct session *session, const struct amqp_connection_info *broker,
                       int64_t deadline_ms, struct outbox_error *error)
{
    amqp_socket_t *socket =
        broker->ssl ? amqp_ssl_socket_new(session->connection) : amqp_tcp_socket_new(session->connection);
    if (!socket) {
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory for a socket");
    }
    if (broker->ssl && configure_tls(session, socket, error) != 0) {
        return -1;
    }
    if (!broker->ssl) {
        int fd = dial(session, broker->host, broker->port, deadline_ms, error);
        if (fd < 0) {
            return -1;
        }
        if (!dial_stays_here(fd)) {
            warn_of_clear_text(session->settings->host);
        }
        amqp_tcp_socket_set_sockfd(socket, fd);
    } else if (open_tls(session, socket, broker, deadline_ms, error) != 0) {
        return -1;
    }
    bound_silence(session);
    return allow_interrupt(session, error);
}

/* ---- login ---- */

static amqp_table_entry_t entry_text(const char *key, const char *value)
{
    return (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes(value)}};
}

static amqp_table_entry_t entry_true(const char *key)
{
    return (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                                .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
}

/* What a connection.close during the login means; many of its codes only say: not now. */
static enum outbox_error_kind kind_of_close(int code, const char *text)
{
    if (code == AMQP_NOT_ALLOWED && strstr(text, "not found")) {
        return OUTBOX_ERROR_CONFIG; /* no such vhost */
    }
    bool refused = code == AMQP_ACCESS_REFUSED || (code == AMQP_NOT_ALLOWED && !strstr(text, "limit"));
    return refused ? OUTBOX_ERROR_REFUSED : OUTBOX_ERROR_UNAVAILABLE;
}

static int login_failed(const struct amqp_connection_info *broker, amqp_rpc_reply_t reply,
                        struct outbox_error *error)
{
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
        reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *close = reply.reply.decoded;
        char text[200];
        (void)snprintf(text, sizeof text, "%.*s", (int)close->reply_text.len,
                       (const char *)close->reply_text.bytes);
        return session_error(error, kind_of_close(close->reply_code, text),
                             "%s:%d refused the login at vhost '%s': %d %s", broker->host, broker->port,
                             broker->vhost, close->reply_code, text);
    }
    return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "%s:%d does not answer as an AMQP broker: %s",
                         broker->host, broker->port,
                         reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION
                             ? amqp_error_string2(reply.library_error)
                             : "unexpected reply");
}

/* The publishing channel, in confirm mode; its tags start at 1. */
static int open_channel(struct session *session, int64_t deadline_ms)
{
    struct timeval left = session_left(deadline_ms);
    (void)amqp_set_rpc_timeout(session->connection, &left);
    if (!amqp_channel_open(session->connection, CHANNEL_PUBLISH)) {
        return -1;
    }
    left = session_left(deadline_ms);
    (void)amqp_set_rpc_timeout(session->connection, &left);
    if (!amqp_confirm_select(session->connection, CHANNEL_PUBLISH)) {
        return -1;
    }
    confirms_reset(&session->confirms);
    session->refused_at_ms = 0;
    return 0;
}

static int log_in(struct session *session, const struct amqp_connection_info *broker, int64_t deadline_ms,
                  struct outbox_error *error)
{
    /* The broker tells connection.blocked only to clients that announce it; librabbitmq alone does not. */
    amqp_table_entry_t abilities[] = {entry_true("connection.blocked"), entry_true("publisher_confirms"),
                                      entry_true("basic.nack")};
    amqp_table_entry_t properties[] = {
        entry_text("product", "outbox-relay"),
        entry_text("connection_name", session->settings->host->client_name),
        {.key = amqp_cstring_bytes("capabilities"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE,
                   .value.table = {sizeof abilities / sizeof abilities[0], abilities}}},
    };
    const amqp_table_t table = {sizeof properties / sizeof properties[0], properties};
    struct timeval left = session_left(deadline_ms);
    (void)amqp_set_handshake_timeout(session->connection, &left);
    (void)amqp_set_rpc_timeout(session->connection, &left);
    amqp_rpc_reply_t reply = amqp_login_with_properties(
        session->connection, broker->vhost, 0, FRAME_MAX_BYTES, (int)session->settings->heartbeat_s, &table,
        AMQP_SASL_METHOD_PLAIN, broker->user, broker->password);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) {
        return login_failed(broker, reply, error);
    }
    session->frame_max = amqp_get_frame_max(session->connection);
    int channels = amqp_get_channel_max(session->connection);
    if (channels > 0 && channels < CHANNEL_DECLARE) {
        return session_error(
            error, OUTBOX_ERROR_CONFIG,
            "%s:%d allows %d channel on a connection, and two are needed: raise its channel_max",
            broker->host, broker->port, channels);
    }
    broker_read(&session->broker, amqp_get_server_properties(session->connection));
    return open_channel(session, deadline_ms) == 0
               ? 0
               : login_failed(broker, amqp_get_rpc_reply(session->connection), error);
}

/* ---- the whole ---- */

static int open_one(struct session *session, const char *url, int64_t deadline_ms, struct outbox_error *error)
{
    struct amqp_connection_info broker;
    char *copy = strdup(url);
    session->connection = copy ? amqp_new_connection() : NULL;
    if (!session->connection || amqp_parse_url(copy, &broker) != AMQP_STATUS_OK) {
        free(copy);
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory for a connection");
    }
    if (broker.vhost[0] == '\0') {
        broker.vhost = "/"; /* amqp://host/ means what amqp://host means */
    }
    int result = open_socket(session, &broker, deadline_ms, error);
    if (result == 0) {
        result = log_in(session, &broker, deadline_ms, error);
    }
    free(copy);
    return result;
}

/*
 * The next of several brokers has its turn where the last one took a login and answered for nothing: a node
 * that is cut off from its cluster does (RabbitMQ 4.3 does not pause it), and so may one in an alarm.
 */
static size_t first_to_try(const struct session *session)
{
    bool idle = session->logged_in && !session->answered;
    return (session->url + idle) % session->settings->url_count;
}

int connection_open(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    size_t count = session->settings->url_count;
    size_t first = first_to_try(session);
    session->logged_in = session->answered = false;
    set_interrupted(session, false);
    for (size_t tried = 0; tried < count && !session_is_interrupted(session); tried++) {
        size_t url = (first + tried) % count;
        int64_t now_ms = session_now_ms();
        int64_t share_ms = now_ms + (deadline_ms - now_ms) / (int64_t)(count - tried);
        error->text[0] = '\0';
        error->kind = OUTBOX_ERROR_UNAVAILABLE;
        if (open_one(session, session->settings->urls[url], share_ms, error) == 0) {
            session->url = url;
            session->logged_in = true;
            return 0;
        }
        connection_close(session);
    }
    return -1;
}

int connection_renew_channel(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    struct timeval left = session_left(deadline_ms);
    (void)amqp_set_rpc_timeout(session->connection, &left);
    amqp_rpc_reply_t closed = amqp_channel_close(session->connection, CHANNEL_PUBLISH, AMQP_REPLY_SUCCESS);
    if (closed.reply_type != AMQP_RESPONSE_NORMAL || open_channel(session, deadline_ms) != 0) {
        return session_error(error, OUTBOX_ERROR_UNAVAILABLE, "the broker opens no new channel");
    }
    return 0;
}

/* Politely, but without waiting: connection.close needs no answer to be heard, and a full socket gets none.
 */
static void say_goodbye(struct session *session)
{
    amqp_connection_close_t goodbye = {.reply_code = AMQP_REPLY_SUCCESS,
                                       .reply_text = amqp_cstring_bytes("bye")};
    struct pollfd socket = {.fd = session->interrupt_fd, .events = POLLOUT};
    if (socket.fd >= 0 && !session_is_interrupted(session) && poll(&socket, 1, 0) == 1 &&
        socket.revents == POLLOUT) {
        (void)amqp_send_method(session->connection, 0, AMQP_CONNECTION_CLOSE_METHOD, &goodbye);
    }
}

void connection_close(struct session *session)
{
    if (session->connection) {
        say_goodbye(session);
        (void)amqp_destroy_connection(session->connection);
        session->connection = NULL;
    }
    (void)pthread_mutex_lock(&session->interrupt_lock);
    if (session->interrupt_fd >= 0) {
        (void)close(session->interrupt_fd);
        session->interrupt_fd = -1;
    }
    (void)pthread_mutex_unlock(&session->interrupt_lock);
    exchanges_clear(&session->exchanges);
    session->returning = (struct returning){0};
    session->declare_channel_open = false;
    session->blocked = false;
}
