#include "cloudevent.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static void add(struct cloudevent *event, const char *name, struct outbox_bytes value)
{
    if (value.len > 0) {
        event->attributes[event->count].name = name;
        event->attributes[event->count++].value = value;
    }
}

static struct outbox_bytes bytes_of(const char *text)
{
    return (struct outbox_bytes){text, strlen(text)};
}

/* RFC 3339 in UTC, with microseconds. */
static void format_time(char *out, size_t out_bytes, int64_t unix_us)
{
    int64_t fraction = unix_us % 1000000;
    time_t seconds = (time_t)(unix_us / 1000000 - (fraction < 0));
    struct tm utc;
    char whole[20];
    out[0] = '\0';
    if (gmtime_r(&seconds, &utc) && strftime(whole, sizeof whole, "-%m-%dT%H:%M:%S", &utc) > 0) {
        (void)snprintf(out, out_bytes, "%04d%s.%06dZ", utc.tm_year + 1900, whole,
                       (int)(fraction < 0 ? fraction + 1000000 : fraction));
    }
}

static int64_t wall_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* RFC 3339 has four digits for the year: what lives longer than 9999 lives until then. */
static int64_t expiry_us(int64_t ttl_ms)
{
    const int64_t last_us = INT64_C(253402300799999999);
    int64_t now_us = wall_us();
    return ttl_ms >= (last_us - now_us) / 1000 ? last_us : now_us + ttl_ms * 1000;
}

int cloudevent_make(struct cloudevent *event, const struct settings *settings,
                    const struct outbox_message *message)
{
    const struct outbox_host *host = settings->host;
    event->count = 0;
    event->expiry[0] = '\0';
    if (host->render(host, settings->source, message, event->source, sizeof event->source) < 1 ||
        host->render(host, settings->subject, message, event->subject, sizeof event->subject) < 0) {
        return -1;
    }
    format_time(event->time, sizeof event->time, message->created_at_us);
    if (message->ttl_ms >= 0) {
        format_time(event->expiry, sizeof event->expiry, expiry_us(message->ttl_ms));
    }
    add(event, "specversion", bytes_of("1.0"));
    add(event, "id", message->id);
    add(event, "source", bytes_of(event->source));
    add(event, "type", message->type);
    add(event, "time", bytes_of(event->time));
    add(event, "subject", bytes_of(event->subject));
    add(event, "partitionkey", message->key);
    add(event, "correlationid", message->correlation_id);
    add(event, "causationid", message->causation_id);
    add(event, "expirytime", bytes_of(event->expiry));
    return 0;
}

static bool is_json_type(struct outbox_bytes type)
{
    size_t len = 0;
    while (len < type.len && type.ptr[len] != ';' && type.ptr[len] != ' ') {
        len++;
    }
    bool suffix = len > 5 && strncasecmp(type.ptr + len - 5, "+json", 5) == 0;
    return suffix || (len == 16 && strncasecmp(type.ptr, "application/json", 16) == 0);
}

static bool is_text_type(struct outbox_bytes type)
{
    return type.len >= 5 && strncasecmp(type.ptr, "text/", 5) == 0;
}

/* The payload as the event's last member. */
struct data {
    const char *member; /* what stands in front of the value; NULL = there is none */
    const char *end;    /* and behind it */
    size_t len;         /* of the value */
    json_t *text;       /* where it is a string; NULL otherwise */
    bool raw;           /* else, if it is no string, in base64 */
};

/*
 * JSON goes in as it is written, so numbers keep their digits and members their order, and never for the word
 * of its content type alone. Nothing is parsed: a tree takes many times the room of its text.
 */
static int data_of(struct data *data, const struct outbox_message *message)
{
    struct outbox_bytes payload = message->payload;
    *data = (struct data){.end = "}"};
    if (payload.len == 0) {
        return 0;
    }
    data->member = ",\"data\":";
    data->len = payload.len;
    data->raw = (message->flags & OUTBOX_MESSAGE_IS_JSON) != 0 && is_json_type(message->content_type);
    if (!data->raw && is_text_type(message->content_type)) {
        data->text = json_stringn(payload.ptr, payload.len); /* NULL if it is not UTF-8 */
        data->len = data->text ? json_dumpb(data->text, NULL, 0, JSON_ENCODE_ANY) : 0;
    }
    if (!data->raw && !data->text) {
        data->member = ",\"data_base64\":\"";
        data->end = "\"}";
        data->len = (payload.len + 2) / 3 * 4;
    }
    return payload.len < INT_MAX ? 0 : -1;
}

static void write_data(char *out, const struct data *data, struct outbox_bytes payload)
{
    if (data->raw) {
        memcpy(out, payload.ptr, payload.len);
    } else if (data->text) {
        (void)json_dumpb(data->text, out, data->len, JSON_ENCODE_ANY);
    } else {
        (void)EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)payload.ptr, (int)payload.len);
    }
}

static char *append(char *out, const char *from, size_t len)
{
    memcpy(out, from, len);
    return out + len;
}

/* The envelope with the payload as its last member; not NUL-terminated. */
static char *with_data(const char *envelope, const struct data *data, struct outbox_bytes payload,
                       size_t *len)
{
    size_t open = strlen(envelope) - 1; /* without its closing brace */
    size_t member = strlen(data->member);
    size_t end = strlen(data->end);
    *len = open + member + data->len + end;
    char *text = malloc(*len + 1); /* base64 comes with a NUL */
    if (text) {
        char *value = append(append(text, envelope, open), data->member, member);
        write_data(value, data, payload);
        (void)append(value + data->len, data->end, end);
    }
    return text;
}

/* 0, or -1: an attribute is not UTF-8, or memory is short. */
static int set_attributes(json_t *object, const struct cloudevent *event)
{
    int result = 0;
    for (size_t at = 0; at < event->count; at++) {
        struct outbox_bytes value = event->attributes[at].value;
        result |= json_object_set_new(object, event->attributes[at].name, json_stringn(value.ptr, value.len));
    }
    return result;
}

char *cloudevent_structured(const struct settings *settings, const struct outbox_message *message,
                            size_t *len)
{
    struct cloudevent event;
    struct data data = {0};
    errno = 0; /* a text that is not taken for lack of memory would pass for one that is not UTF-8 */
    json_t *object = json_object();
    char *text = NULL;
    int result = object ? cloudevent_make(&event, settings, message) : -1;
    if (result == 0) {
        result = set_attributes(object, &event) |
                 json_object_set_new(object, "datacontenttype",
                                     json_stringn(message->content_type.ptr, message->content_type.len));
    }
    if (result == 0 && data_of(&data, message) == 0) {
        text = json_dumps(object, JSON_COMPACT);
    }
    if (text && data.member) {
        char *whole = with_data(text, &data, message->payload, len);
        free(text);
        text = whole;
    } else if (text) {
        *len = strlen(text);
    }
    json_decref(data.text);
    json_decref(object);
    if (errno == ENOMEM) {
        free(text);
        text = NULL;
    }
    return text;
}
