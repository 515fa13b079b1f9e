/*
 * fuzz_answers - a receiver that answers as it likes, on connections that are kept and used again: a message
 * is confirmed only by a whole final 2xx that was sent after its own request had come. The receiver is a
 * thread with a socket; a second reading of what it sent judges.
 *
 * First byte: bits 0 and 1 how many messages, bit 2 one or two in flight. Then an answer for each request: a
 * byte of flags, and bytes up to a NUL. Flags: bit 0 the connection ends behind it, bits 1 to 3 what stands
 * before the bytes.
 */
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "publish.h"
#include "transfer.h"

enum { MESSAGES = 4, CONNECTIONS = 16, REQUEST_BYTES = 8192, ANSWER_BYTES = 4096, DEADLINE_MS = 3000 };

static const char *const canned[] = {
    "",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n\r\n"};

/* Under the lock but for the listener. */
static struct {
    pthread_mutex_t lock;
    int listener;
    int port;
    const uint8_t *script;
    size_t left;
    bool may_confirm[MESSAGES]; /* a whole final 2xx was sent after its request had come */
    unsigned round;             /* connections of an earlier one are closed */
} receiver = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- the second reading ---- */

/* Behind the line that ends a header section: the first that begins with CR or LF, as libcurl reads it,
 * whatever else stands in it; NULL where none is whole. */
static const char *behind_head(const char *at, const char *end)
{
    const char *line = memchr(at, '\n', (size_t)(end - at));
    while (line && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        if (next && (*line == '\r' || *line == '\n')) {
            return next + 1;
        }
        line = next;
    }
    return NULL;
}

/* The first final answer of what was sent: is it a 2xx whose header section is whole? */
static bool confirms(const char *sent, size_t len)
{
    const char *at = sent;
    const char *end = sent + len;
    while (at < end && (*at == '\r' || *at == '\n')) {
        at++;
    }
    while (end - at > 12 && strncasecmp(at, "HTTP/", 5) == 0) {
        const char *space = memchr(at, ' ', (size_t)(end - at));
        long status = space ? strtol(space + 1, NULL, 10) : 0;
        const char *blank = behind_head(at, end);
        if (!blank || status >= 200 || status < 100) {
            return blank && status >= 200 && status <= 299;
        }
        at = blank;
    }
    return false;
}

/* ---- the receiver ---- */

struct connection {
    int fd; /* -1 = none */
    unsigned round;
    size_t len;
    char request[REQUEST_BYTES + 1];
};

/* What it says next; false where it has nothing to say any more. */
static bool next_answer(char *answer, size_t *len, bool *closes)
{
    if (receiver.left == 0) {
        return false;
    }
    unsigned flags = *receiver.script++;
    receiver.left--;
    const char *front = canned[flags >> 1 & 7];
    size_t raw = strnlen((const char *)receiver.script, receiver.left);
    size_t front_len = strlen(front);
    size_t taken = raw < ANSWER_BYTES - front_len ? raw : ANSWER_BYTES - front_len;
    memcpy(answer, front, front_len);
    memcpy(answer + front_len, receiver.script, taken);
    *len = front_len + taken;
    *closes = flags & 1;
    receiver.script += raw;
    receiver.left -= raw;
    if (receiver.left > 0) {
        receiver.script++;
        receiver.left--;
    }
    return true;
}

static void hang_up(struct connection *connection)
{
    (void)close(connection->fd);
    connection->fd = -1;
}

static void answer(struct connection *connection, const char *head)
{
    char text[ANSWER_BYTES + 1];
    size_t len = 0;
    bool closes = true;
    const char *id = strstr(head, "webhook-id: ");
    (void)pthread_mutex_lock(&receiver.lock);
    bool any = connection->round == receiver.round && next_answer(text, &len, &closes);
    size_t index = id ? (size_t)(id[12] - '0') : MESSAGES;
    if (any && index < MESSAGES) {
        text[len] = '\0';
        receiver.may_confirm[index] |= confirms(text, len);
    }
    (void)pthread_mutex_unlock(&receiver.lock);
    if (any && len > 0) {
        (void)send(connection->fd, text, len, MSG_NOSIGNAL);
    }
    if (closes) {
        hang_up(connection);
    }
}

/* The bodies are empty: a request ends with its head. */
static void read_requests(struct connection *connection)
{
    ssize_t got = recv(connection->fd, connection->request + connection->len, REQUEST_BYTES - connection->len,
                       MSG_DONTWAIT);
    if (got <= 0) {
        hang_up(connection);
        return;
    }
    connection->len += (size_t)got;
    connection->request[connection->len] = '\0';
    for (char *end = NULL; connection->fd >= 0 && (end = strstr(connection->request, "\r\n\r\n"));) {
        size_t used = (size_t)(end - connection->request) + 4;
        end[2] = '\0';
        answer(connection, connection->request);
        connection->len -= used;
        memmove(connection->request, connection->request + used, connection->len + 1);
    }
}

static void take_connection(struct connection *connections)
{
    int fd = accept(receiver.listener, NULL, NULL);
    for (size_t at = 0; at < CONNECTIONS && fd >= 0; at++) {
        if (connections[at].fd < 0) {
            (void)pthread_mutex_lock(&receiver.lock);
            connections[at].round = receiver.round;
            (void)pthread_mutex_unlock(&receiver.lock);
            connections[at].fd = fd;
            connections[at].len = 0;
            return;
        }
    }
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void *receive(void *nothing)
{
    static struct connection connections[CONNECTIONS];
    (void)nothing;
    for (size_t at = 0; at < CONNECTIONS; at++) {
        connections[at].fd = -1;
    }
    for (;;) {
        struct pollfd polled[CONNECTIONS + 1] = {{receiver.listener, POLLIN, 0}};
        for (size_t at = 0; at < CONNECTIONS; at++) {
            polled[at + 1] = (struct pollfd){connections[at].fd, POLLIN, 0};
        }
        PROMISE(poll(polled, CONNECTIONS + 1, -1) > 0, "something to hear");
        for (size_t at = 0; at < CONNECTIONS; at++) {
            if (polled[at + 1].revents) {
                read_requests(&connections[at]);
            }
        }
        if (polled[0].revents) {
            take_connection(connections);
        }
    }
    return NULL;
}

static void start_receiver(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    pthread_t thread;
    receiver.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    PROMISE(receiver.listener >= 0 &&
                bind(receiver.listener, (struct sockaddr *)&address, sizeof address) == 0 &&
                listen(receiver.listener, 64) == 0 &&
                getsockname(receiver.listener, (struct sockaddr *)&address, &len) == 0,
            "a listener");
    receiver.port = ntohs(address.sin_port);
    PROMISE(pthread_create(&thread, NULL, receive, NULL) == 0, "a thread");
    PROMISE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "libcurl");
}

/* ---- the backend ---- */

static bool settled[MESSAGES];

static void settle(struct outbox_batch *batch, size_t index, enum outbox_verdict verdict, const char *reason,
                   int64_t retry_after_ms)
{
    PROMISE(index < batch->count && !settled[index], "each message once");
    settled[index] = true;
    PROMISE(verdict == OUTBOX_CONFIRMED || (reason && reason[0]), "no refusal without a reason");
    PROMISE(retry_after_ms == 0 || (retry_after_ms >= 1000 && retry_after_ms <= 86400000),
            "a wait of 1 s .. 24 h");
    if (verdict == OUTBOX_CONFIRMED) {
        (void)pthread_mutex_lock(&receiver.lock);
        bool may = receiver.may_confirm[index];
        (void)pthread_mutex_unlock(&receiver.lock);
        PROMISE(may, "confirmed only by what came after its own request");
    }
}

static int render(const struct outbox_host *host, const char *pattern, const struct outbox_message *message,
                  char *out, size_t out_bytes)
{
    (void)host;
    (void)message;
    return snprintf(out, out_bytes, "%s", pattern);
}

static void publish(const struct settings *settings, size_t count)
{
    static const char *const ids[MESSAGES] = {"0", "1", "2", "3"};
    struct outbox_message messages[MESSAGES];
    const struct outbox_message *pointers[MESSAGES];
    struct outbox_error error = {.size = sizeof error};
    struct outbox_batch batch = {sizeof batch, count, pointers, settle};
    struct session session = {.settings = settings, .multi = session_multi_new(settings)};
    session.transfers = calloc(settings->max_in_flight, sizeof *session.transfers);
    PROMISE(session.multi && session.transfers && pthread_mutex_init(&session.lock, NULL) == 0, "memory");
    for (size_t at = 0; at < count; at++) {
        messages[at] = (struct outbox_message){.size = sizeof messages[at],
                                               .id = {ids[at], 1},
                                               .channel = {"c", 1},
                                               .type = {"t", 1},
                                               .content_type = {"text/plain", 10},
                                               .payload = {"", 0},
                                               .ttl_ms = -1,
                                               .header_size = sizeof(struct outbox_header)};
        pointers[at] = &messages[at];
        settled[at] = false;
    }
    enum outbox_session_state state = publish_batch(&session, &batch, session_now_ms() + DEADLINE_MS, &error);
    PROMISE(state == OUTBOX_SESSION_OK || error.text[0], "a loss says why");
    for (size_t at = 0; at < session.created; at++) {
        transfer_finish(&session.transfers[at]);
    }
    (void)curl_multi_cleanup(session.multi);
    sockets_finish(&session.sockets);
    (void)pthread_mutex_destroy(&session.lock);
    free(session.transfers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char url[64];
    static const struct outbox_host host = {.size = sizeof host, .client_name = "fuzz", .render = render};
    if (bytes == 0) {
        return 0;
    }
    if (receiver.port == 0) {
        start_receiver();
        (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/", receiver.port);
    }
    const struct settings settings = {.host = &host,
                                      .url = url,
                                      .one_host = true,
                                      .method = "POST",
                                      .source = "s",
                                      .subject = "",
                                      .http_1_1 = true,
                                      .max_in_flight = data[0] & 4 ? 2 : 1,
                                      .timeout_ms = 30,
                                      .connect_timeout_ms = 1000,
                                      .max_idle_ms = 10000,
                                      .max_response_bytes = 1 << 16};
    (void)pthread_mutex_lock(&receiver.lock);
    receiver.script = data + 1;
    receiver.left = bytes - 1;
    receiver.round++;
    memset(receiver.may_confirm, 0, sizeof receiver.may_confirm);
    (void)pthread_mutex_unlock(&receiver.lock);
    publish(&settings, (data[0] & 3) + 1);
    (void)pthread_mutex_lock(&receiver.lock);
    receiver.left = 0; /* the input is libFuzzer's again */
    (void)pthread_mutex_unlock(&receiver.lock);
    return 0;
}
