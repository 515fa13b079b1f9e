#include "frames.h"

#include <stdio.h>
#include <string.h>

#include "envelope.h"

static const char seq_header[] = "outbox-seq";

static void copy_text(char *out, size_t out_bytes, amqp_bytes_t text)
{
    (void)snprintf(out, out_bytes, "%.*s", (int)text.len, (const char *)text.bytes);
}

/* ---- confirms and returns ---- */

static void settled(void *context, size_t index, enum confirm_result result, const char *reply)
{
    struct session *session = context;
    struct outbox_batch *batch = session->batch;
    const struct outbox_message *message = batch->messages[index];
    if (result == CONFIRM_ACKED || (result == CONFIRM_RETURNED && session->settings->unroutable_accepted &&
                                    message->kind == OUTBOX_EVENT)) {
        batch->settle(batch, index, OUTBOX_CONFIRMED, NULL, 0);
    } else if (result == CONFIRM_RETURNED) {
        batch->settle(batch, index, OUTBOX_RETRY, reply, 0);
    } else {
        session->refused_at_ms = session->refused_at_ms ? session->refused_at_ms : session_now_ms();
        batch->settle(batch, index, OUTBOX_HOLD,
                      "the broker refused it (basic.nack): a queue is full (reject-publish) or not available",
                      0);
    }
}

static enum frames_result on_confirm(struct session *session, uint64_t tag, bool multiple, bool ack,
                                     struct outbox_error *error)
{
    if (!confirms_answer(&session->confirms, tag, multiple, ack, settled, session)) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE,
                            "the broker confirmed delivery tag %llu, which was never used",
                            (unsigned long long)tag);
        return FRAMES_LOST;
    }
    session->answered = true;
    return FRAMES_SOME;
}

static void on_return(struct session *session, const amqp_basic_return_t *returned)
{
    char text[80];
    char exchange[100];
    char key[100];
    copy_text(text, sizeof text, returned->reply_text);
    copy_text(exchange, sizeof exchange, returned->exchange);
    copy_text(key, sizeof key, returned->routing_key);
    session->returning = (struct returning){.active = true};
    char *reply = session->returning.reply;
    size_t reply_bytes = sizeof session->returning.reply;
    if (exchange[0] == '\0') { /* the default one: nobody can bind to it */
        (void)snprintf(reply, reply_bytes, "unroutable: %d %s: create queue '%s'", returned->reply_code, text,
                       key);
    } else {
        (void)snprintf(reply, reply_bytes,
                       "unroutable: %d %s at exchange '%s' with routing key '%s': bind a queue",
                       returned->reply_code, text, exchange, key);
    }
}

static bool seq_of(const amqp_basic_properties_t *properties, int64_t *seq)
{
    for (int at = 0; properties->_flags & AMQP_BASIC_HEADERS_FLAG && at < properties->headers.num_entries;
         at++) {
        const amqp_table_entry_t *entry = &properties->headers.entries[at];
        if (entry->key.len == sizeof seq_header - 1 &&
            memcmp(entry->key.bytes, seq_header, entry->key.len) == 0 &&
            entry->value.kind == AMQP_FIELD_KIND_I64) {
            *seq = entry->value.value.i64;
            return true;
        }
    }
    return false;
}

static uint64_t id_of(const amqp_basic_properties_t *properties)
{
    bool there = properties->_flags & AMQP_BASIC_MESSAGE_ID_FLAG;
    return there ? envelope_id_hash(properties->message_id.bytes, properties->message_id.len) : 0;
}

static enum frames_result end_return(struct session *session, struct outbox_error *error)
{
    struct returning *returning = &session->returning;
    returning->active = false;
    if (returning->known) {
        (void)confirms_returned(&session->confirms, returning->seq, returning->id,
                                returning->reply); /* else late news */
        return FRAMES_SOME;
    }
    /* Without knowing which message came back, an ack could delete it. */
    (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE,
                        "the broker returned a message without its header %s", seq_header);
    return FRAMES_LOST;
}

static enum frames_result on_content(struct session *session, const amqp_frame_t *frame,
                                     struct outbox_error *error)
{
    struct returning *returning = &session->returning;
    bool header = frame->frame_type == AMQP_FRAME_HEADER;
    /* librabbitmq decodes the properties of any class, each into a struct of its own. */
    bool stranger = header && frame->payload.properties.class_id != AMQP_BASIC_CLASS;
    if (!returning->active || stranger || frame->channel != CHANNEL_PUBLISH ||
        header == returning->has_header) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE,
                            "the broker sent content that does not belong to a return");
        return FRAMES_LOST;
    }
    if (header) {
        returning->has_header = true;
        returning->body_left = frame->payload.properties.body_size;
        returning->known = seq_of(frame->payload.properties.decoded, &returning->seq);
        returning->id = id_of(frame->payload.properties.decoded);
    } else {
        uint64_t length = frame->payload.body_fragment.len;
        returning->body_left -= length < returning->body_left ? length : returning->body_left;
    }
    return returning->body_left == 0 ? end_return(session, error) : FRAMES_SOME;
}

/* ---- closes ---- */

/* Is it this one that the broker's text is about? "... topic 'key' in exchange 'name' in vhost ...", cut off
 * at 255 bytes. `before` is what stands in front of it. */
static bool is_about(const char *text, const char *before, const char *wanted)
{
    const char *name = strstr(text, before);
    if (!name) {
        return false;
    }
    name += strlen(before);
    size_t same = 0;
    while (wanted[same] != '\0' && wanted[same] == name[same]) {
        same++;
    }
    return wanted[same] == '\0' ? name[same] == '\'' || name[same] == '\0' : name[same] == '\0';
}

/* Where permissions are by topic, only what goes by that routing key is refused. */
static bool is_refused(const char *text, const struct envelope *envelope)
{
    static const char topic[] = "access to topic '";
    return envelope->exchange[0] != '\0' && is_about(text, "exchange '", envelope->exchange) &&
           (!strstr(text, topic) || is_about(text, topic, envelope->routing_key));
}

/* The broker names the exchange that it does not let us publish to: none of what is in flight to it was
 * taken. Others of their outbox channel may have another exchange. */
static bool blame_exchange(struct session *session, const char *text, const char *reason)
{
    struct confirms *confirms = &session->confirms;
    struct outbox_batch *batch = session->batch;
    bool found = false;
    for (size_t at = confirms->lowest; at < confirms->count; at++) {
        struct confirm_entry *entry = &confirms->entries[at];
        struct envelope envelope;
        char unused[256];
        if (!entry->settled &&
            envelope_address(session->settings, batch->messages[entry->index], &envelope, unused) &&
            is_refused(text, &envelope)) {
            entry->settled = true;
            confirms->outstanding--;
            batch->settle(batch, entry->index, OUTBOX_RETRY, reason, 0);
            found = true;
        }
    }
    return found;
}

/* The channel died of a message in flight. The broker says which exchange it was, or it can only be the one
 * that was on its way alone. */
static void blame(struct session *session, int code, const char *text, const char *reason)
{
    size_t index = 0;
    bool refused = code == AMQP_ACCESS_REFUSED || code == AMQP_NOT_FOUND;
    struct outbox_batch *batch = session->batch;
    if (!batch || (refused && blame_exchange(session, text, reason)) ||
        !confirms_only_one(&session->confirms, &index)) {
        return;
    }
    bool too_large = code == AMQP_PRECONDITION_FAILED && strstr(text, "size");
    batch->settle(batch, index, too_large ? OUTBOX_REJECTED : OUTBOX_RETRY, reason, 0);
}

static enum frames_result on_channel_close(struct session *session, amqp_channel_t channel,
                                           const amqp_channel_close_t *close, struct outbox_error *error)
{
    char text[256];
    char reason[320]; /* a sentence even where the broker's own text is empty */
    copy_text(text, sizeof text, close->reply_text);
    (void)snprintf(reason, sizeof reason, "the broker closed the channel: %d %s", close->reply_code, text);
    amqp_channel_close_ok_t ok = {0};
    int status = amqp_send_method(session->connection, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
    if (channel == CHANNEL_DECLARE && status == AMQP_STATUS_OK) {
        bool passive = !session->settings->declare_ensures;
        bool is_missing = close->reply_code == AMQP_NOT_FOUND && passive;
        session->declare_channel_open = false; /* the broker has closed it */
        if (close->reply_code == AMQP_ACCESS_REFUSED && passive) {
            exchange_declared(
                &session->exchanges); /* RabbitMQ 4 lets not everybody ask: publishing will show */
            return FRAMES_SOME;
        }
        exchange_refused(&session->exchanges, close->reply_code, text,
                         is_missing ? ": create it, or set amqp.declare: ensure" : "");
        return FRAMES_SOME;
    }
    blame(session, close->reply_code, text, reason);
    (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "%s", reason);
    return FRAMES_LOST;
}

static enum frames_result on_connection_close(struct session *session, const amqp_connection_close_t *close,
                                              struct outbox_error *error)
{
    char text[256];
    copy_text(text, sizeof text, close->reply_text);
    amqp_connection_close_ok_t ok = {0};
    (void)amqp_send_method(session->connection, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
    (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "the broker closed the connection: %d %s",
                        close->reply_code, text);
    return FRAMES_LOST;
}

/* ---- the loop ---- */

/* What is said about messages is said on the channel that they were published on: tags count per channel. */
static bool is_astray(const amqp_frame_t *frame)
{
    amqp_method_number_t id = frame->payload.method.id;
    bool about_messages =
        id == AMQP_BASIC_ACK_METHOD || id == AMQP_BASIC_NACK_METHOD || id == AMQP_BASIC_RETURN_METHOD;
    return about_messages && frame->channel != CHANNEL_PUBLISH;
}

static enum frames_result on_method(struct session *session, const amqp_frame_t *frame,
                                    struct outbox_error *error)
{
    const void *decoded = frame->payload.method.decoded;
    switch (is_astray(frame) ? 0 : frame->payload.method.id) {
    case AMQP_BASIC_ACK_METHOD: {
        const amqp_basic_ack_t *ack = decoded;
        return on_confirm(session, ack->delivery_tag, ack->multiple, true, error);
    }
    case AMQP_BASIC_NACK_METHOD: {
        const amqp_basic_nack_t *nack = decoded;
        return on_confirm(session, nack->delivery_tag, nack->multiple, false, error);
    }
    case AMQP_BASIC_RETURN_METHOD:
        on_return(session, decoded);
        return FRAMES_SOME;
    case AMQP_CHANNEL_OPEN_OK_METHOD:
        return FRAMES_SOME;
    case AMQP_EXCHANGE_DECLARE_OK_METHOD:
        exchange_declared(&session->exchanges);
        return FRAMES_SOME;
    case AMQP_CHANNEL_CLOSE_METHOD:
        return on_channel_close(session, frame->channel, decoded, error);
    case AMQP_CONNECTION_CLOSE_METHOD:
        return on_connection_close(session, decoded, error);
    case AMQP_CONNECTION_BLOCKED_METHOD:
        session->blocked_at_ms = session->blocked ? session->blocked_at_ms : session_now_ms();
        session->blocked = true;
        copy_text(session->blocked_reason, sizeof session->blocked_reason,
                  ((const amqp_connection_blocked_t *)decoded)->reason);
        return FRAMES_SOME;
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        session->blocked = false;
        return FRAMES_SOME;
    default:
        break;
    }
    (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "the broker sent %s, which nobody asked for",
                        amqp_method_name(frame->payload.method.id)
                            ? amqp_method_name(frame->payload.method.id)
                            : "an unknown method");
    return FRAMES_LOST;
}

enum frames_result frames_pump(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    amqp_frame_t frame;
    struct timeval left = session_left(deadline_ms);
    int status = amqp_simple_wait_frame_noblock(session->connection, &frame, &left);
    if (status == AMQP_STATUS_TIMEOUT) {
        return FRAMES_NONE;
    }
    if (status != AMQP_STATUS_OK) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "the connection was lost: %s",
                            amqp_error_string2(status));
        return FRAMES_LOST;
    }
    enum frames_result result = FRAMES_SOME;
    if (frame.frame_type == AMQP_FRAME_METHOD) {
        result = on_method(session, &frame, error);
    } else if (frame.frame_type == AMQP_FRAME_HEADER || frame.frame_type == AMQP_FRAME_BODY) {
        result = on_content(session, &frame, error);
    }
    /* Never amqp_release_buffers(): it aborts in the middle of a frame. */
    amqp_maybe_release_buffers(session->connection);
    return result;
}

enum frames_result frames_drain(struct session *session, struct outbox_error *error)
{
    enum frames_result result = FRAMES_SOME;
    while (result == FRAMES_SOME) {
        result = frames_pump(session, 0, error);
    }
    return result;
}
