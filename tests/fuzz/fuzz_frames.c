/*
 * fuzz_frames - a broker that says anything: after a login the input is read as a script of frames, or as raw
 * bytes; frames.c carries on or says FRAMES_LOST, settles only what was published, each at most once, and
 * confirms only what was acked first, on the publishing channel, without having been returned.
 *
 * First byte: bit 0 raw bytes, bit 1 no canned login before them, bit 2 the connection ends behind them, bits
 * 3 to 6 how many messages are in flight, bit 7 whether an earlier batch was abandoned.
 */
#include "connection.c" /* its login is static, and the fuzzer brings a socket of its own */

#include "broker.h"
#include "declare.h"
#include "frames.h"
#include "fuzz.h"

enum { MESSAGES = 16, SEQ = 1000, SEND_BUFFER_BYTES = 4 << 20 };

/* What the bytes that were sent allow, by a second reading of them. */
struct model {
    uint64_t first_tag;
    size_t count;
    char answer[MESSAGES];   /* the first one: 'a' acked on the publishing channel, 'n' anything else */
    bool returned[MESSAGES]; /* before its answer */
    bool anything;           /* raw bytes: an ack may stand anywhere among them */
};

static struct model model;
static enum outbox_verdict verdicts[MESSAGES];
static unsigned settled_times[MESSAGES];

static void settle(struct outbox_batch *batch, size_t index, enum outbox_verdict verdict, const char *reason,
                   int64_t retry_after_ms)
{
    (void)batch;
    (void)retry_after_ms;
    PROMISE(index < model.count, "only what was published is settled");
    PROMISE(++settled_times[index] == 1, "nothing is settled twice");
    PROMISE(verdict != OUTBOX_UNSETTLED, "a verdict that says something");
    PROMISE(verdict == OUTBOX_CONFIRMED || (reason && reason[0]), "no refusal without a reason");
    if (verdict == OUTBOX_CONFIRMED && !model.anything) {
        PROMISE(model.answer[index] == 'a', "confirmed only by an ack that came first");
        PROMISE(!model.returned[index], "what came back is not confirmed by its ack");
    }
    verdicts[index] = verdict;
}

/* ---- the second reading ---- */

static uint64_t number_at(const unsigned char *bytes, unsigned count)
{
    uint64_t number = 0;
    for (unsigned at = 0; at < count; at++) {
        number = number << 8 | bytes[at];
    }
    return number;
}

static void model_frame(unsigned type, unsigned channel, const struct content *content)
{
    uint64_t id = content->len >= 4 ? number_at(content->bytes, 4) : 0;
    if (type != FRAME_METHOD || content->len < 13 || (id != METHOD_ACK && id != METHOD_NACK)) {
        return;
    }
    uint64_t tag = number_at(content->bytes + 4, 8);
    bool multiple = content->bytes[12] & 1;
    for (size_t at = 0; at < model.count; at++) {
        uint64_t own = model.first_tag + at;
        bool covered = own == tag || (multiple && (tag == 0 || own < tag));
        if (covered && !model.answer[at]) {
            model.answer[at] = id == METHOD_ACK && channel == CHANNEL_PUBLISH ? 'a' : 'n';
        }
    }
}

/* ---- the script ---- */

struct script {
    const uint8_t *data;
    size_t left;
    struct wire wire;
};

static unsigned next(struct script *script)
{
    script->left -= script->left > 0;
    return *script->data++; /* libFuzzer's input is copied with zeros behind it */
}

static void send_frame(struct script *script, unsigned type, unsigned channel, const struct content *content)
{
    size_t before = script->wire.len;
    wire_frame(&script->wire, type, channel, content);
    if (script->wire.len > before) {
        model_frame(type, channel, content);
    }
}

static void send_answer(struct script *script, bool ack)
{
    struct content content = {.len = 0};
    unsigned tag = next(script);
    content_number(&content, ack ? METHOD_ACK : METHOD_NACK, 4);
    content_number(&content, tag & 63, 8);
    content_number(&content, tag >> 7, 1); /* multiple */
    send_frame(script, FRAME_METHOD, tag & 64 ? CHANNEL_DECLARE : CHANNEL_PUBLISH, &content);
}

static void send_return(struct script *script)
{
    size_t index = next(script) % MESSAGES;
    size_t before = script->wire.len;
    wire_return(&script->wire, SEQ + (int64_t)index);
    if (script->wire.len > before && index < model.count && !model.answer[index]) {
        model.returned[index] = true;
    }
}

/* A frame in a good envelope with any contents: a method that we know by name, or whatever. */
static void send_any(struct script *script, unsigned op)
{
    static const uint32_t methods[] = {METHOD_ACK,     METHOD_NACK,    METHOD_RETURN,  METHOD(20, 11),
                                       METHOD(20, 40), METHOD(20, 20), METHOD(10, 50), METHOD(10, 60),
                                       METHOD(10, 61), METHOD(40, 11), METHOD(60, 60), METHOD(10, 51)};
    static const unsigned types[] = {FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT};
    struct content content = {.len = 0};
    unsigned type = types[op >> 2 & 3];
    unsigned channel = op >> 4 & 3;
    unsigned method = next(script);
    size_t len = next(script);
    if (type == FRAME_METHOD && method < 128) {
        content_number(&content, methods[method % (sizeof methods / sizeof methods[0])], 4);
    }
    for (; len > 0 && script->left > 0; len--) {
        content_number(&content, next(script), 1);
    }
    send_frame(script, type, channel, &content);
}

static void run_script(struct script *script)
{
    while (script->left > 0) {
        unsigned op = next(script);
        if (op & 1) {
            send_any(script, op);
        } else if (op & 2) {
            send_return(script);
        } else {
            send_answer(script, op & 4);
        }
    }
}

/* ---- the session ---- */

static int open_pair(struct session *session)
{
    int pair[2];
    int room = SEND_BUFFER_BYTES; /* nobody reads our answers */
    PROMISE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "a socket pair");
    (void)setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    (void)setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    session->connection = amqp_new_connection();
    PROMISE(session->connection, "a connection");
    amqp_socket_t *socket = amqp_tcp_socket_new(session->connection);
    PROMISE(socket, "a socket");
    amqp_tcp_socket_set_sockfd(socket, pair[0]);
    return pair[1];
}

static void publish(struct session *session, size_t count, bool late)
{
    memset(&model, 0, sizeof model);
    memset(settled_times, 0, sizeof settled_times);
    if (late) {
        PROMISE(confirms_begin(&session->confirms, MESSAGES) == 0, "memory");
        confirms_published(&session->confirms, 0, SEQ, 7);
        confirms_end(&session->confirms);
    }
    PROMISE(confirms_begin(&session->confirms, MESSAGES) == 0, "memory");
    model.first_tag = session->confirms.first_tag;
    model.count = count;
    for (size_t at = 0; at < count; at++) {
        confirms_published(&session->confirms, at, SEQ + (int64_t)at, 7);
    }
}

static void send_all(int peer, const struct wire *wire)
{
    for (size_t at = 0; at < wire->len;) {
        ssize_t sent = send(peer, wire->bytes + at, wire->len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        PROMISE(sent > 0, "room for the broker's bytes");
        at += (size_t)sent;
    }
}

static bool login(struct session *session, struct outbox_error *error)
{
    static char vhost[] = "/", user[] = "guest", host[] = "broker";
    const struct amqp_connection_info broker = {user, user, host, vhost, 5672, 0};
    int result = log_in(session, &broker, session_now_ms() + 200, error);
    PROMISE(result == 0 || error->text[0], "a login that fails says why");
    return result == 0;
}

static void converse(struct session *session, struct script *script, unsigned flags, int peer)
{
    const struct outbox_message kinds[] = {{.size = sizeof kinds[0], .kind = OUTBOX_EVENT},
                                           {.size = sizeof kinds[0], .kind = OUTBOX_COMMAND}};
    const struct outbox_message *messages[MESSAGES];
    struct outbox_batch batch = {sizeof batch, MESSAGES, messages, settle};
    struct outbox_error error = {.size = sizeof error};
    for (size_t at = 0; at < MESSAGES; at++) {
        messages[at] = &kinds[at % 2];
    }
    if (flags & 1) {
        size_t len = script->left < WIRE_BYTES - 4096 ? script->left : WIRE_BYTES - 4096;
        memcpy(script->wire.bytes + script->wire.len, script->data, len);
        script->wire.len += len;
    }
    if (flags & 1 && flags & 2) { /* the login itself is fuzzed: there must be an end, or it waits */
        send_all(peer, &script->wire);
        (void)shutdown(peer, SHUT_WR);
        (void)login(session, &error);
        return;
    }
    send_all(peer, &script->wire);
    if (!(flags & 1)) {
        script->wire.len = 0;
    }
    PROMISE(login(session, &error), "the canned login");
    publish(session, flags >> 3 & 15, flags >> 7);
    model.anything = flags & 1;
    if (!(flags & 1)) {
        const char *reason = NULL; /* a declaration under way, so that its answers mean something */
        enum exchange_state asked = declare_exchange(session, "events", 0, &reason, &error);
        PROMISE(asked == EXCHANGE_ASKED, "no answer before there is one");
        run_script(script);
        send_all(peer, &script->wire);
    }
    if (flags & 4) {
        (void)shutdown(peer, SHUT_WR);
    }
    session->batch = &batch;
    enum frames_result result = frames_drain(session, &error);
    PROMISE(result != FRAMES_SOME, "a drain ends with nothing or a loss");
    PROMISE((result == FRAMES_LOST) == (error.text[0] != '\0'), "a loss says why, and nothing else does");
    PROMISE(!(flags & 4) || result == FRAMES_LOST, "an end of the connection is a loss");
}

/* The settings have no variables in their templates. */
static int render(const struct outbox_host *host, const char *pattern, const struct outbox_message *message,
                  char *out, size_t out_bytes)
{
    (void)host;
    (void)message;
    return snprintf(out, out_bytes, "%s", pattern);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct outbox_host host = {.size = sizeof host, .client_name = "fuzz", .render = render};
    static const struct settings settings = {.host = &host,
                                             .heartbeat_s = 10,
                                             .exchange_type = "topic",
                                             .exchange = "events",
                                             .routing_key = "type",
                                             .command_exchange = "c",
                                             .command_routing_key = "channel"};
    static struct script script;
    struct session session = {.settings = &settings, .interrupt_fd = -1};
    uint8_t *copy = calloc(1, bytes + 8);
    PROMISE(copy, "memory");
    memcpy(copy, data, bytes);
    script = (struct script){.data = copy + 1, .left = bytes > 0 ? bytes - 1 : 0};
    (void)pthread_mutex_init(&session.interrupt_lock, NULL);
    unsigned flags = copy[0];
    if (!(flags & 1 && flags & 2)) {
        wire_handshake(&script.wire);
    }
    int peer = open_pair(&session);
    converse(&session, &script, flags, peer);
    session.batch = NULL;
    connection_close(&session);
    confirms_finish(&session.confirms);
    (void)close(peer);
    free(copy);
    return 0;
}
