/*
 * stdout - one JSON line per message on standard output: the first thing to try, and a pipe to anything.
 *
 * CONFIRMED means that write(2) took the whole line, so a reader that dies loses at most what is in the pipe.
 */
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/evp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "outbox_backend.h"

/* Sessions of several workers write to one descriptor: lines must not mix. */
struct output {
    pthread_mutex_t lock;
    bool torn; /* the last line was cut off: end it before the next */
};

static int stdout_open(void **backend, const struct outbox_host *host, const struct outbox_settings *settings,
                       struct outbox_error *error)
{
    (void)host;
    (void)settings;
    struct output *output = calloc(1, sizeof *output);
    if (!output) {
        (void)snprintf(error->text, sizeof error->text, "out of memory");
        return -1;
    }
    (void)pthread_mutex_init(&output->lock, NULL);
    *backend = output;
    return 0;
}

static void stdout_close(void *backend)
{
    struct output *output = backend;
    (void)pthread_mutex_destroy(&output->lock);
    free(output);
}

static int stdout_session_new(void *backend, void **session, struct outbox_error *error)
{
    (void)error;
    *session = backend; /* there is nothing of a session's own */
    return 0;
}

static void stdout_session_free(void *session)
{
    (void)session;
}

static int stdout_connect(void *session, int64_t deadline_ms, struct outbox_error *error)
{
    (void)session;
    (void)deadline_ms;
    (void)error;
    return 0;
}

static void stdout_disconnect(void *session)
{
    (void)session;
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A reader that is slow makes us wait until the deadline; one that is gone (EPIPE) ends the session. */
static bool write_all(const char *line, size_t len, int64_t deadline_ms, struct outbox_error *error)
{
    while (len > 0) {
        struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
        int64_t left_ms = deadline_ms - now_ms();
        int ready = poll(&out, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready == 0) {
            (void)snprintf(error->text, sizeof error->text,
                           "standard output took nothing until the deadline");
            return false;
        }
        /* PIPE_BUF at a time never blocks after poll() said ready. */
        ssize_t written = ready < 0 ? -1 : write(STDOUT_FILENO, line, len < 4096 ? len : 4096);
        if (written < 0 && errno != EINTR && errno != EAGAIN) {
            (void)snprintf(error->text, sizeof error->text, "cannot write to standard output: %s",
                           strerror(errno));
            return false;
        }
        if (written > 0) {
            line += written;
            len -= (size_t)written;
        }
    }
    return true;
}

static const char *kind_of(const struct outbox_message *message)
{
    static const char *const kinds[] = {"event", "command", "reply"};
    return kinds[message->kind];
}

static json_t *string_of(struct outbox_bytes bytes)
{
    return bytes.len > 0 ? json_stringn(bytes.ptr, bytes.len) : NULL;
}

static json_t *header_value(const struct outbox_header *header)
{
    char number[64]; /* values are not NUL-terminated */
    (void)snprintf(number, sizeof number, "%.*s", (int)header->value.len, header->value.ptr);
    switch (header->type) {
    case OUTBOX_VALUE_INT:
        return json_integer(strtoll(number, NULL, 10));
    case OUTBOX_VALUE_DOUBLE:
        return json_real(strtod(number, NULL));
    case OUTBOX_VALUE_BOOL:
        return json_boolean(number[0] == 't');
    case OUTBOX_VALUE_NULL:
        return json_null();
    case OUTBOX_VALUE_STRING:
        break;
    }
    return json_stringn(header->value.ptr, header->value.len);
}

static json_t *headers_of(const struct outbox_message *message)
{
    json_t *headers = message->header_count > 0 ? json_object() : NULL;
    for (size_t at = 0; headers && at < message->header_count; at++) {
        const struct outbox_header *header = outbox_header_at(message, at);
        (void)json_object_setn_new(headers, header->name.ptr, header->name.len, header_value(header));
    }
    return headers;
}

static json_t *base64_of(struct outbox_bytes bytes)
{
    unsigned char *text = bytes.len < INT_MAX ? malloc((bytes.len + 2) / 3 * 4 + 1) : NULL;
    int len = text ? EVP_EncodeBlock(text, (const unsigned char *)bytes.ptr, (int)bytes.len) : -1;
    json_t *value = len >= 0 ? json_stringn((const char *)text, (size_t)len) : NULL;
    free(text);
    return value;
}

/* By its type and in truth: bytes that only call themselves JSON could add members to the line, or break it.
 */
static bool is_json(const struct outbox_message *message)
{
    static const char json[] = "application/json";
    return (message->flags & OUTBOX_MESSAGE_IS_JSON) != 0 && message->content_type.len >= sizeof json - 1 &&
           memcmp(message->content_type.ptr, json, sizeof json - 1) == 0;
}

/* ---- what speaks to a terminal ---- */

/* DEL, C1, line separators, what turns the direction of reading and what cannot be seen, by the first bytes
 * of its UTF-8. 0 if it is none of them. */
static size_t hidden_length(const unsigned char *at, size_t left)
{
    static const struct {
        unsigned char first, second, low, high; /* of the third byte, or of the second where `second` is 0 */
    } rows[] = {{0xC2, 0, 0x80, 0x9F},    {0xC2, 0, 0xAD, 0xAD},    {0xCD, 0, 0x8F, 0x8F},
                {0xD8, 0, 0x9C, 0x9C},    {0xE1, 0x85, 0x9F, 0xA0}, {0xE1, 0x9E, 0xB4, 0xB5},
                {0xE1, 0xA0, 0x8B, 0x8F}, {0xE2, 0x80, 0x8B, 0x8B}, {0xE2, 0x80, 0x8E, 0x8F},
                {0xE2, 0x80, 0xA8, 0xAE}, {0xE2, 0x81, 0xA0, 0xAF}, {0xE2, 0xA0, 0x80, 0x80},
                {0xE3, 0x85, 0xA4, 0xA4}, {0xEF, 0xB8, 0x80, 0x8F}, {0xEF, 0xBB, 0xBF, 0xBF},
                {0xEF, 0xBE, 0xA0, 0xA0}, {0xEF, 0xBF, 0xB9, 0xBB}};
    if (at[0] == 0x7F) {
        return 1;
    }
    if (left >= 4 && at[0] == 0xF3 && at[1] == 0xA0 && (at[2] < 0x82 || (at[2] >= 0x84 && at[2] <= 0x87))) {
        return 4;
    }
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        size_t last = rows[row].second ? 2 : 1;
        if (left > last && at[0] == rows[row].first && (last == 1 || at[1] == rows[row].second) &&
            at[last] >= rows[row].low && at[last] <= rows[row].high) {
            return last + 1;
        }
    }
    return 0;
}

/* The line with \uXXXX for such: the same JSON. Takes `line` over; NULL if memory is short. */
static char *escape_hidden(char *line, size_t *len)
{
    size_t more = 0;
    for (size_t at = 0; at < *len; at++) {
        size_t hidden = hidden_length((const unsigned char *)line + at, *len - at);
        more += hidden == 0 ? 0 : (hidden == 4 ? 12 : 6) - hidden;
    }
    if (more == 0) {
        return line;
    }
    char *escaped = malloc(*len + more + 1);
    size_t used = 0;
    for (size_t at = 0; escaped && at < *len;) {
        const unsigned char *byte = (const unsigned char *)line + at;
        size_t hidden = hidden_length(byte, *len - at);
        unsigned code = hidden == 1   ? byte[0]
                        : hidden == 2 ? (byte[0] & 0x1FU) << 6 | (byte[1] & 0x3FU)
                        : hidden == 3 ? (byte[0] & 0x0FU) << 12 | (byte[1] & 0x3FU) << 6 | (byte[2] & 0x3FU)
                                      : (byte[2] & 0x3FU) << 6 | (hidden ? byte[3] & 0x3FU : 0);
        if (hidden == 0) {
            escaped[used++] = line[at++];
            continue;
        }
        used += (size_t)(hidden == 4 ? sprintf(escaped + used, "\\udb40\\u%04x", 0xDC00 + code)
                                     : sprintf(escaped + used, "\\u%04x", code));
        at += hidden;
    }
    free(line);
    *len = used;
    return escaped;
}

/* {"id":…,"kind":…,…} with the payload's own text at the end, never parsed: numbers and order of keys stay as
 * written. */
static char *line_of(const struct outbox_message *message, size_t *len)
{
    static const char member[] = ",\"payload\":";
    bool raw = message->payload.len > 0 && is_json(message);
    errno = 0; /* a member that does not fit into memory is left out by jansson, and the line must not be */
    json_t *object = json_pack(
        "{s:o*, s:s, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*}", "id", string_of(message->id), "kind",
        kind_of(message), "channel", string_of(message->channel), "type", string_of(message->type), "key",
        string_of(message->key), "correlation_id", string_of(message->correlation_id), "causation_id",
        string_of(message->causation_id), "reply_to", string_of(message->reply_to), "content_type",
        string_of(message->content_type), "headers", headers_of(message));
    if (object && !raw) {
        json_t *text = json_stringn(message->payload.ptr, message->payload.len);
        (void)json_object_set_new(object, text ? "payload" : "payload_base64",
                                  text ? text : base64_of(message->payload));
    }
    char *envelope = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!envelope || errno == ENOMEM) {
        free(envelope);
        return NULL;
    }
    size_t envelope_len = strlen(envelope);
    char *line = malloc(envelope_len + message->payload.len + 16);
    if (line) {
        size_t used = envelope_len - (raw ? 1 : 0);
        memcpy(line, envelope, used);
        if (raw) {
            memcpy(line + used, member, sizeof member - 1);
            memcpy(line + used + sizeof member - 1, message->payload.ptr, message->payload.len);
            for (size_t at = 0; at < message->payload.len; at++) {
                char *byte = line + used + sizeof member - 1 +
                             at; /* a line break in JSON text is white space: strings escape theirs */
                *byte = *byte == '\n' || *byte == '\r' ? ' ' : *byte;
            }
            used += sizeof member - 1 + message->payload.len;
            line[used++] = '}';
        }
        line[used++] = '\n';
        *len = used;
        line = escape_hidden(line, len);
    }
    free(envelope);
    return line;
}

static bool write_line(struct output *output, const char *line, size_t len, int64_t deadline_ms,
                       struct outbox_error *error)
{
    if (output->torn && !write_all("\n", 1, deadline_ms, error)) {
        return false;
    }
    output->torn = !write_all(line, len, deadline_ms, error);
    return !output->torn;
}

static enum outbox_session_state stdout_publish(void *session, struct outbox_batch *batch,
                                                int64_t deadline_ms, struct outbox_error *error)
{
    struct output *output = session;
    enum outbox_session_state state = OUTBOX_SESSION_OK;
    (void)pthread_mutex_lock(&output->lock);
    for (size_t at = 0; at < batch->count && state == OUTBOX_SESSION_OK; at++) {
        size_t len = 0;
        char *line = line_of(batch->messages[at], &len);
        if (!line) {
            batch->settle(batch, at, OUTBOX_RETRY,
                          "the message could not be written as a JSON line: out of memory", 0);
        } else if (write_line(output, line, len, deadline_ms, error)) {
            batch->settle(batch, at, OUTBOX_CONFIRMED, NULL, 0);
        } else {
            state = OUTBOX_SESSION_LOST;
        }
        free(line);
    }
    (void)pthread_mutex_unlock(&output->lock);
    return state;
}

static const struct outbox_option stdout_options[] = {{0}};

static const struct outbox_backend stdout_backend = {
    .size = sizeof(struct outbox_backend),
    .name = "stdout",
    .version = "1.0.0",
    .options = stdout_options,
    .open = stdout_open,
    .close = stdout_close,
    .session_new = stdout_session_new,
    .session_free = stdout_session_free,
    .connect = stdout_connect,
    .disconnect = stdout_disconnect,
    .publish = stdout_publish,
};

OUTBOX_BACKEND("stdout", "1.0.0", stdout_backend);
