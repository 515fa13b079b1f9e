/*
 * The bare librabbitmq publisher that the relay is measured against: confirms pipelined in a window, the same
 * properties, no database.
 *
 *     bare_publisher HOST PORT EXCHANGE KEY SESSIONS WINDOW MESSAGES BODY_BYTES
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#endif

enum { MAX_SESSIONS = 64, LOOK_EVERY = 64 };

static struct {
    const char *host, *exchange, *key;
    int port;
    long window, messages, body_bytes;
} load;

static void fail(const char *what)
{
    (void)fprintf(stderr, "bare_publisher: %s failed\n", what);
    exit(EXIT_FAILURE);
}

static amqp_connection_state_t connect_session(void)
{
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (amqp_socket_open(socket, load.host, load.port) != AMQP_STATUS_OK ||
        amqp_login(connection, "/", 0, 131072, 10, AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type !=
            AMQP_RESPONSE_NORMAL ||
        !amqp_channel_open(connection, 1) || !amqp_confirm_select(connection, 1)) {
        fail("connecting");
    }
    return connection;
}

/* Reads one frame if there is one, or waits for one; the highest tag confirmed so far. One queue confirms
 * nearly in order. */
static uint64_t pump(amqp_connection_state_t connection, uint64_t confirmed, int wait)
{
    struct timeval left = {.tv_sec = wait ? 30 : 0};
    amqp_frame_t frame;
    int status = amqp_simple_wait_frame_noblock(connection, &frame, &left);
    if (status == AMQP_STATUS_TIMEOUT && !wait) {
        return confirmed;
    }
    if (status != AMQP_STATUS_OK || frame.frame_type != AMQP_FRAME_METHOD ||
        frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
        fail("waiting for a confirm");
    }
    uint64_t tag = ((const amqp_basic_ack_t *)frame.payload.method.decoded)->delivery_tag;
    amqp_maybe_release_buffers(connection);
    return tag > confirmed ? tag : confirmed;
}

static void *run(void *unused)
{
    (void)unused;
    amqp_connection_state_t connection = connect_session();
    char *body = malloc((size_t)load.body_bytes);
    if (!body) {
        fail("allocating");
    }
    memset(body, 'x', (size_t)load.body_bytes);
    uint64_t confirmed = 0;
    for (long sent = 0; sent < load.messages; sent++) {
        char id[48];
        (void)snprintf(id, sizeof id, "00000000-0000-0000-0000-%012ld", sent);
        amqp_table_entry_t entries[] = {
            {.key = amqp_cstring_bytes("outbox-seq"),
             .value = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = sent}},
            {.key = amqp_cstring_bytes("outbox-key"),
             .value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = amqp_cstring_bytes("42")}},
        };
        const amqp_basic_properties_t properties = {
            ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG |
                      AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG |
                      AMQP_BASIC_APP_ID_FLAG,
            .delivery_mode = 2,
            .timestamp = 1700000000,
            .headers = {2, entries},
            .message_id = amqp_cstring_bytes(id),
            .type = amqp_cstring_bytes("order.placed"),
            .content_type = amqp_cstring_bytes("application/json"),
            .app_id = amqp_cstring_bytes("outbox-relay"),
        };
        const amqp_bytes_t bytes = {(size_t)load.body_bytes, body};
        if (amqp_basic_publish(connection, 1, amqp_cstring_bytes(load.exchange), amqp_cstring_bytes(load.key),
                               1, 0, &properties, bytes) != AMQP_STATUS_OK) {
            fail("publishing");
        }
        if (sent % LOOK_EVERY == LOOK_EVERY - 1) {
            confirmed = pump(connection, confirmed, 0);
        }
        while ((uint64_t)sent + 1 - confirmed >= (uint64_t)load.window) {
            confirmed = pump(connection, confirmed, 1);
        }
    }
    while (confirmed < (uint64_t)load.messages) {
        confirmed = pump(connection, confirmed, 1);
    }
    free(body);
    (void)amqp_destroy_connection(connection);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[MAX_SESSIONS];
    if (argc != 9 || atoi(argv[5]) < 1 || atoi(argv[5]) > MAX_SESSIONS) {
        (void)fprintf(stderr, "bare_publisher HOST PORT EXCHANGE KEY SESSIONS WINDOW MESSAGES BODY_BYTES\n");
        return 64;
    }
    int sessions = atoi(argv[5]);
    load.host = argv[1];
    load.port = atoi(argv[2]);
    load.exchange = argv[3];
    load.key = argv[4];
    load.window = atol(argv[6]);
    load.messages = atol(argv[7]) / sessions;
    load.body_bytes = atol(argv[8]);
    for (int at = 0; at < sessions; at++) {
        if (pthread_create(&threads[at], NULL, run, NULL) != 0) {
            return EXIT_FAILURE;
        }
    }
    for (int at = 0; at < sessions; at++) {
        (void)pthread_join(threads[at], NULL);
    }
    return EXIT_SUCCESS;
}
