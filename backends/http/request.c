#include "request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cloudevent.h"
#include "field.h"
#include "signature.h"
#include "url.h"

enum { FIELD_MAX_BYTES = 16 << 10 };

/* The header lines of one request, and the first thing that went wrong with them. */
struct fields {
    const struct settings *settings;
    const struct outbox_message *message;
    struct curl_slist *list;
    size_t configured;           /* the number of the entry of http.headers that is added; 0 = none */
    enum outbox_verdict verdict; /* UNSETTLED = nothing yet */
    char *reason;
};

static void fail(struct fields *fields, enum outbox_verdict verdict, const char *format, const char *what,
                 size_t len)
{
    if (fields->verdict == OUTBOX_UNSETTLED) {
        fields->verdict = verdict;
        (void)snprintf(fields->reason, REASON_BYTES, format, (int)(len < 100 ? len : 100), what);
    }
}

/* `line` is "name: value", or "name;" for a field without value (curl's spelling). */
static void append(struct fields *fields, const char *line)
{
    struct curl_slist *longer = curl_slist_append(fields->list, line);
    if (!longer) {
        fail(fields, OUTBOX_RETRY, "%.*s", "out of memory", 13);
        return;
    }
    fields->list = longer;
}

static void add(struct fields *fields, struct outbox_bytes name, struct outbox_bytes value)
{
    char line[FIELD_MAX_BYTES];
    char number[32]; /* a configured name may be a piece of a secret that was divided at a comma */
    (void)snprintf(number, sizeof number, "***%zu", fields->configured);
    const char *shown = fields->configured > 0 ? number : name.ptr;
    size_t shown_len = fields->configured > 0 ? strlen(number) : name.len;
    if (!field_name_is_valid(name)) {
        fail(fields, OUTBOX_REJECTED,
             "the name of header '%.*s' is not one for HTTP: letters, digits and '-'", shown, shown_len);
    } else if (!field_value_is_valid(value)) {
        fail(fields, OUTBOX_REJECTED, "header '%.*s' holds a line break or another control character", shown,
             shown_len);
    } else if (name.len + value.len + 4 > sizeof line) {
        fail(fields, OUTBOX_REJECTED, "header '%.*s' is longer than 16 KiB", shown, shown_len);
    } else {
        bool blank = true;
        for (size_t at = 0; at < value.len && blank; at++) {
            blank = value.ptr[at] == ' ' || value.ptr[at] == '\t';
        }
        (void)snprintf(line, sizeof line, "%.*s%s%.*s", (int)name.len, name.ptr, blank ? ";" : ": ",
                       blank ? 0 : (int)value.len, blank ? "" : value.ptr);
        append(fields, line);
    }
}

static struct outbox_bytes bytes_of(const char *text)
{
    return (struct outbox_bytes){text, strlen(text)};
}

static void add_where_set(struct fields *fields, const char *name, struct outbox_bytes value)
{
    if (value.len > 0) {
        add(fields, bytes_of(name), value);
    }
}

/* Options are the operator's: a value that cannot be rendered for this message is not the message's fault
 * alone. */
static void add_configured(struct fields *fields)
{
    const struct settings *settings = fields->settings;
    char value[TEMPLATE_MAX_BYTES];
    for (size_t at = 0; at < settings->header_count; at++) {
        int len = settings->host->render(settings->host, settings->header_values[at], fields->message, value,
                                         sizeof value);
        fields->configured = at + 1;
        if (len < 0) {
            fail(fields, OUTBOX_REJECTED, "%.*s",
                 "an entry of http.headers cannot be filled with what this message has", 68);
        } else {
            add(fields, bytes_of(settings->header_names[at]), (struct outbox_bytes){value, (size_t)len});
        }
    }
    fields->configured = 0;
    if (settings->authorization) {
        append(fields, settings->authorization);
    }
}

bool request_is_configured(const struct settings *settings, struct outbox_bytes name)
{
    for (size_t at = 0; at < settings->header_count; at++) {
        if (field_is_named(name, settings->header_names[at])) {
            return true;
        }
    }
    return false;
}

static void add_of_message(struct fields *fields)
{
    const struct outbox_message *message = fields->message;
    for (size_t at = 0; at < message->header_count; at++) {
        const struct outbox_header *header = outbox_header_at(message, at);
        struct outbox_bytes name = header->name;
        if (field_is_reserved(name) || request_is_configured(fields->settings, name)) {
            fail(fields, OUTBOX_REJECTED, "header '%.*s' is not a message's to set over HTTP", name.ptr,
                 name.len);
        } else {
            add(fields, name, header->value);
        }
    }
}

static void add_envelope(struct fields *fields)
{
    static const char *const kinds[] = {"event", "command", "reply"};
    const struct outbox_message *message = fields->message;
    add_where_set(fields, "outbox-kind", bytes_of(kinds[message->kind]));
    add_where_set(fields, "outbox-channel", message->channel);
    add_where_set(fields, "outbox-type", message->type);
    add_where_set(fields, "outbox-key", message->key);
    add_where_set(fields, "outbox-correlation-id", message->correlation_id);
    add_where_set(fields, "outbox-causation-id", message->causation_id);
    add_where_set(fields, "outbox-reply-to", message->reply_to);
}

static void add_cloudevent(struct fields *fields)
{
    struct cloudevent event;
    char value[FIELD_MAX_BYTES / 2];
    if (cloudevent_make(&event, fields->settings, fields->message) != 0) {
        fail(fields, OUTBOX_REJECTED, "%.*s",
             "http.source or http.subject cannot be filled with what this message has", 71);
        return;
    }
    for (size_t at = 0; at < event.count; at++) {
        char name[64];
        (void)snprintf(name, sizeof name, "ce-%s", event.attributes[at].name);
        int len = field_encode(event.attributes[at].value, value, sizeof value);
        if (len < 0) {
            fail(fields, OUTBOX_REJECTED, "CloudEvents attribute '%.*s' is too long for a header", name,
                 strlen(name));
            return;
        }
        add(fields, bytes_of(name), (struct outbox_bytes){value, (size_t)len});
    }
}

/* webhook-id goes with every request: receivers recognise duplicates by it, libcurl's own repetitions among
 * them. */
static void add_webhook(struct fields *fields, struct outbox_bytes body)
{
    const struct settings *settings = fields->settings;
    struct outbox_bytes id = fields->message->id;
    int64_t now_s = (int64_t)time(NULL); /* the wall clock is what the standard asks for */
    char stamp[32];
    char signature[SIGNATURE_BYTES];
    add(fields, bytes_of("webhook-id"), id);
    if (settings->key_count == 0) {
        return;
    }
    if (memchr(id.ptr, '.', id.len)) {
        fail(fields, OUTBOX_REJECTED, "id '%.*s' holds a dot, and Standard Webhooks cannot sign it", id.ptr,
             id.len);
        return;
    }
    if (signature_make(signature, settings->keys, settings->key_count, id, now_s, body) != 0) {
        fail(fields, OUTBOX_RETRY, "%.*s", "the signature could not be made", 31);
        return;
    }
    (void)snprintf(stamp, sizeof stamp, "%lld", (long long)now_s);
    add(fields, bytes_of("webhook-timestamp"), bytes_of(stamp));
    add(fields, bytes_of("webhook-signature"), bytes_of(signature));
}

static void make_fields(struct fields *fields, struct outbox_bytes body)
{
    const struct settings *settings = fields->settings;
    bool structured = settings->cloudevents == CLOUDEVENTS_STRUCTURED;
    add(fields, bytes_of("Content-Type"),
        structured ? bytes_of("application/cloudevents+json; charset=utf-8") : fields->message->content_type);
    append(fields, "Expect:"); /* no 100-continue: it costs a round trip */
    add_webhook(fields, body);
    if (settings->cloudevents == CLOUDEVENTS_OFF) {
        add_envelope(fields);
    } else if (settings->cloudevents == CLOUDEVENTS_BINARY) {
        add_cloudevent(fields);
    }
    add_configured(fields);
    add_of_message(fields);
}

/* Who reads along on this host reads us, too. */
static bool is_near(const char *url)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1"};
    return url_is_listed(url, hosts, sizeof hosts / sizeof hosts[0]) == 1;
}

static enum outbox_verdict set_url(struct transfer *transfer, const struct outbox_message *message,
                                   char reason[REASON_BYTES])
{
    const struct settings *settings = transfer->session->settings;
    struct url {
        char text[URL_MAX_BYTES];
    } url;
    const char *fault = url_render(settings->host, settings->url, message, url.text, sizeof url.text);
    if (fault) {
        (void)snprintf(reason, REASON_BYTES, "http.url: %s", fault);
        return OUTBOX_REJECTED;
    }
    if (strncmp(url.text, "https://", 8) != 0 && strncmp(url.text, "http://", 7) != 0) {
        (void)snprintf(reason, REASON_BYTES,
                       "the URL of this message is not http:// or https://, and no other is followed");
        return OUTBOX_RETRY;
    }
    int listed =
        settings->host_count > 0 ? url_is_listed(url.text, settings->hosts, settings->host_count) : 1;
    if (listed != 1) {
        (void)snprintf(reason, REASON_BYTES, "%s",
                       listed == 0 ? "http.hosts does not name the host of this message's URL"
                                   : "out of memory");
        return listed == 0 ? OUTBOX_REJECTED : OUTBOX_RETRY;
    }
    transfer->tls = url.text[4] == 's';
    if (settings->scheme_per_message && settings->credentials && !transfer->tls && !is_near(url.text)) {
        (void)snprintf(reason, REASON_BYTES,
                       "the URL of this message is not https://, and what goes along is secret");
        return OUTBOX_REJECTED;
    }
    if (curl_easy_setopt(transfer->easy, CURLOPT_URL, url.text) != CURLE_OK ||
        curl_easy_setopt(transfer->easy, CURLOPT_FRESH_CONNECT, 0L) != CURLE_OK) {
        (void)snprintf(reason, REASON_BYTES, "out of memory");
        return OUTBOX_RETRY;
    }
    return OUTBOX_UNSETTLED;
}

enum outbox_verdict request_prepare(struct transfer *transfer, const struct outbox_message *message,
                                    int64_t timeout_ms, char reason[REASON_BYTES])
{
    const struct settings *settings = transfer->session->settings;
    struct outbox_bytes body = message->payload;
    enum outbox_verdict verdict = set_url(transfer, message, reason);
    if (verdict != OUTBOX_UNSETTLED) {
        return verdict;
    }
    if (settings->cloudevents == CLOUDEVENTS_STRUCTURED) {
        transfer->body = cloudevent_structured(settings, message, &body.len);
        if (!transfer->body && errno == ENOMEM) {
            (void)snprintf(reason, REASON_BYTES, "out of memory");
            return OUTBOX_RETRY;
        }
        if (!transfer->body) {
            (void)snprintf(reason, REASON_BYTES,
                           "the message cannot be written as a structured CloudEvent: a text is not UTF-8");
            return OUTBOX_REJECTED;
        }
        body.ptr = transfer->body;
    }
    struct fields fields = {.settings = settings, .message = message, .reason = reason};
    make_fields(&fields, body);
    transfer->headers = fields.list;
    if (fields.verdict != OUTBOX_UNSETTLED) {
        return fields.verdict;
    }
    transfer->body_bytes = body.len;
    CURLcode result = curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers);
    result =
        result ? result : curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
    result =
        result ? result : curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, body.len > 0 ? body.ptr : "");
    result = result ? result : curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    if (result != CURLE_OK) {
        (void)snprintf(reason, REASON_BYTES, "the request could not be made: %s", curl_easy_strerror(result));
        return OUTBOX_RETRY;
    }
    return OUTBOX_UNSETTLED;
}
