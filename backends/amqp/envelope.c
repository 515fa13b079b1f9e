#include "envelope.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The header frame carries its own overhead and properties besides the table (AMQP 0-9-1, 4.2.6). */
enum { SHORT_STRING_MAX = 255, OWN_HEADERS = 3, FRAME_OVERHEAD = 2048 };

/* RabbitMQ closes the channel over more than ten years (rabbit_misc:check_expiry); later than that is never.
 */
static const int64_t EXPIRATION_MAX_MS = 315360000000;

static bool refuse(char reason[256], const char *what, const char *why)
{
    (void)snprintf(reason, 256, "%s %s", what, why);
    return false;
}

static amqp_bytes_t bytes_of(struct outbox_bytes bytes)
{
    return (amqp_bytes_t){.len = bytes.len, .bytes = (void *)bytes.ptr};
}

/* ---- addresses ---- */

static bool render(const struct settings *settings, const char *pattern, const struct outbox_message *message,
                   char out[256])
{
    return settings->host->render(settings->host, pattern, message, out, SHORT_STRING_MAX + 1) >= 0;
}

static bool is_listed(const struct settings *settings, struct outbox_bytes name)
{
    char text[SHORT_STRING_MAX + 1];
    if (name.len >= sizeof text || memchr(name.ptr, '\0', name.len)) {
        return false; /* no exchange and no queue has such a name */
    }
    memcpy(text, name.ptr, name.len);
    text[name.len] = '\0';
    for (size_t at = 0; at < settings->channel_count; at++) {
        if (fnmatch(settings->channels[at], text, 0) == 0) {
            return true;
        }
    }
    return false;
}

/* Who may write into the outbox names any exchange and any queue, and who may send a command names with its
 * reply_to where the answer goes: the operator says which there are. */
static bool is_permitted(const struct settings *settings, const struct outbox_message *message)
{
    bool reply = message->kind == OUTBOX_REPLY && message->reply_to.len > 0;
    return settings->channel_count == 0 ||
           (is_listed(settings, message->channel) && (!reply || is_listed(settings, message->reply_to)));
}

bool envelope_address(const struct settings *settings, const struct outbox_message *message,
                      struct envelope *envelope, char reason[256])
{
    bool event = message->kind == OUTBOX_EVENT;
    bool reply = message->kind == OUTBOX_REPLY && message->reply_to.len > 0;
    const char *key = event ? settings->routing_key : reply ? "${reply_to}" : settings->command_routing_key;
    if (!is_permitted(settings, message)) {
        return refuse(reason, "amqp.channels", "does not name where this message is to go");
    }
    if (!render(settings, event ? settings->exchange : settings->command_exchange, message,
                envelope->exchange)) {
        return refuse(reason, "the exchange's name", "is longer than 255 bytes or holds a NUL byte");
    }
    if (!render(settings, key, message, envelope->routing_key)) {
        return refuse(reason, "the routing key", "is longer than 255 bytes or holds a NUL byte");
    }
    return true;
}

/* ---- headers ---- */

static bool is_allowed(const struct settings *settings, struct outbox_bytes name)
{
    for (size_t at = 0; at < settings->allowed_header_count; at++) {
        if (strlen(settings->allowed_headers[at]) == name.len &&
            memcmp(settings->allowed_headers[at], name.ptr, name.len) == 0) {
            return true;
        }
    }
    return false;
}

/* The broker routes copies by them, wants arrays, and closes the channel over anything else. */
static bool is_copy(struct outbox_bytes name)
{
    return (name.len == 2 && memcmp(name.ptr, "CC", 2) == 0) ||
           (name.len == 3 && memcmp(name.ptr, "BCC", 3) == 0);
}

/* x-... belongs to the broker. */
static bool is_special(struct outbox_bytes name)
{
    return name.len >= 2 && strncasecmp(name.ptr, "x-", 2) == 0;
}

static amqp_field_value_t value_of(const struct outbox_header *header)
{
    amqp_field_value_t value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes_of(header->value)};
    char number[64]; /* values are not NUL-terminated */
    (void)snprintf(number, sizeof number, "%.*s", (int)header->value.len, header->value.ptr);
    switch (header->type) {
    case OUTBOX_VALUE_INT:
        value.kind = AMQP_FIELD_KIND_I64;
        value.value.i64 = strtoll(number, NULL, 10);
        break;
    case OUTBOX_VALUE_DOUBLE:
        value.kind = AMQP_FIELD_KIND_F64;
        value.value.f64 = strtod(number, NULL);
        break;
    case OUTBOX_VALUE_BOOL:
        value.kind = AMQP_FIELD_KIND_BOOLEAN;
        value.value.boolean = number[0] == 't';
        break;
    case OUTBOX_VALUE_NULL:
        value.kind = AMQP_FIELD_KIND_VOID;
        break;
    case OUTBOX_VALUE_STRING:
        break;
    }
    return value;
}

static bool make_room(struct session *session, size_t count)
{
    if (count <= session->entry_capacity) {
        return true;
    }
    amqp_table_entry_t *grown = realloc(session->entries, count * sizeof *grown);
    if (!grown) {
        return false;
    }
    session->entries = grown;
    session->entry_capacity = count;
    return true;
}

static void add_entry(struct session *session, amqp_table_t *table, amqp_bytes_t name,
                      amqp_field_value_t value)
{
    session->entries[table->num_entries++] = (amqp_table_entry_t){.key = name, .value = value};
}

static void add_own(struct session *session, amqp_table_t *table, const char *name, struct outbox_bytes text)
{
    if (text.len > 0) {
        add_entry(session, table, amqp_cstring_bytes(name),
                  (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes_of(text)});
    }
}

static bool fill_headers(struct session *session, const struct outbox_message *message, amqp_table_t *table,
                         char reason[256])
{
    size_t bytes = 0;
    *table = (amqp_table_t){.num_entries = 0, .entries = session->entries};
    add_entry(session, table, amqp_cstring_bytes("outbox-seq"),
              (amqp_field_value_t){.kind = AMQP_FIELD_KIND_I64, .value.i64 = message->seq});
    add_own(session, table, "outbox-key", message->key);
    add_own(session, table, "outbox-causation-id", message->causation_id);
    for (size_t at = 0; at < message->header_count; at++) {
        const struct outbox_header *header = outbox_header_at(message, at);
        char what[128];
        (void)snprintf(what, sizeof what, "header '%.*s'", header->name.len > 80 ? 80 : (int)header->name.len,
                       header->name.ptr);
        if (header->name.len == 0 || header->name.len > SHORT_STRING_MAX) {
            return refuse(reason, what, "has a name that is empty or longer than 255 bytes");
        }
        if (header->name.len > 7 && memcmp(header->name.ptr, "outbox-", 7) == 0) {
            return refuse(reason, what, "has a name that belongs to the relay");
        }
        if (is_copy(header->name)) {
            return refuse(reason, what, "would have to be a list, which a header of the outbox cannot be");
        }
        if (is_special(header->name) && !is_allowed(session->settings, header->name)) {
            return refuse(reason, what,
                          "means something to the broker: list it in amqp.allowed_headers if it is meant");
        }
        bytes += header->name.len + header->value.len + 16;
        add_entry(session, table, bytes_of(header->name), value_of(header));
    }
    if (bytes + FRAME_OVERHEAD > (size_t)session->frame_max) {
        return refuse(reason, "the headers", "are larger than one AMQP frame");
    }
    return true;
}

/* ---- properties ---- */

static bool set_text(amqp_basic_properties_t *properties, amqp_bytes_t *field, amqp_flags_t flag,
                     struct outbox_bytes text)
{
    if (text.len > SHORT_STRING_MAX) {
        return false;
    }
    if (text.len > 0) {
        *field = bytes_of(text);
        properties->_flags |= flag;
    }
    return true;
}

/* RabbitMQ, "Direct Reply-to": published with it by anybody else, the channel is closed (406). */
static const char direct_reply[] = "amq.rabbitmq.reply-to";

static bool fill_properties(struct session *session, const struct outbox_message *message,
                            struct envelope *envelope, char reason[256])
{
    amqp_basic_properties_t *properties = &envelope->properties;
    const struct outbox_bytes app_id = {session->settings->app_id, strlen(session->settings->app_id)};
    *properties = (amqp_basic_properties_t){
        ._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG,
        .delivery_mode = 2, /* persistent */
        .timestamp = message->created_at_us > 0 ? (uint64_t)(message->created_at_us / 1000000) : 0,
    };
    if (!set_text(properties, &properties->message_id, AMQP_BASIC_MESSAGE_ID_FLAG, message->id) ||
        !set_text(properties, &properties->type, AMQP_BASIC_TYPE_FLAG, message->type) ||
        !set_text(properties, &properties->correlation_id, AMQP_BASIC_CORRELATION_ID_FLAG,
                  message->correlation_id) ||
        !set_text(properties, &properties->reply_to, AMQP_BASIC_REPLY_TO_FLAG, message->reply_to) ||
        !set_text(properties, &properties->content_type, AMQP_BASIC_CONTENT_TYPE_FLAG,
                  message->content_type) ||
        !set_text(properties, &properties->app_id, AMQP_BASIC_APP_ID_FLAG, app_id)) {
        return refuse(reason, "type, correlation_id, reply_to or content_type", "is longer than 255 bytes");
    }
    if (message->reply_to.len == sizeof direct_reply - 1 &&
        memcmp(message->reply_to.ptr, direct_reply, message->reply_to.len) == 0) {
        return refuse(reason, "reply_to 'amq.rabbitmq.reply-to'",
                      "works for whoever consumes from it on this very channel only: name a queue");
    }
    if (message->key.len > SHORT_STRING_MAX || message->causation_id.len > SHORT_STRING_MAX) {
        return refuse(reason, "key or causation_id", "is longer than 255 bytes");
    }
    int64_t ttl_ms = session_ttl_ms(session, message);
    if (ttl_ms >= 0 && ttl_ms <= EXPIRATION_MAX_MS) {
        (void)snprintf(envelope->expiration, sizeof envelope->expiration, "%lld", (long long)ttl_ms);
        properties->expiration = amqp_cstring_bytes(envelope->expiration);
        properties->_flags |= AMQP_BASIC_EXPIRATION_FLAG;
    }
    return fill_headers(session, message, &properties->headers, reason);
}

static bool is_too_large(const struct session *session, size_t bytes, char reason[256])
{
    int64_t allowed = session->settings->max_message_bytes;
    if (allowed > 0 && bytes > (size_t)allowed) {
        (void)snprintf(reason, 256, "the payload has %zu bytes, amqp.max_message_bytes allows %lld", bytes,
                       (long long)allowed);
        return true;
    }
    int64_t taken = session->broker.max_message_bytes;
    if (allowed == 0 && bytes > (size_t)taken) {
        (void)snprintf(reason, 256,
                       "the payload has %zu bytes, %s takes %lld: if its max_message_size is larger, set "
                       "amqp.max_message_bytes",
                       bytes, session->broker.name[0] ? session->broker.name : "the broker",
                       (long long)taken);
        return true;
    }
    return false;
}

enum outbox_verdict envelope_seal(struct session *session, const struct outbox_message *message,
                                  struct envelope *envelope, char reason[256])
{
    if (is_too_large(session, message->payload.len, reason)) {
        return OUTBOX_REJECTED;
    }
    if (!make_room(session, message->header_count + OWN_HEADERS)) {
        (void)snprintf(reason, 256, "memory was short for the message's headers");
        return OUTBOX_HOLD;
    }
    bool sealed = envelope_address(session->settings, message, envelope, reason) &&
                  fill_properties(session, message, envelope, reason);
    return sealed ? OUTBOX_UNSETTLED : OUTBOX_REJECTED;
}

/* FNV-1a: the ids of one batch that have one seq are few, and nobody gains by a collision. */
uint64_t envelope_id_hash(const void *id, size_t id_len)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t at = 0; at < id_len; at++) {
        hash = (hash ^ ((const unsigned char *)id)[at]) * 0x100000001b3u;
    }
    return hash != 0 ? hash : 1;
}
