/* torture_http - settings and requests of backend http in a shortage of memory: whole, or tried again. */
#include <string.h>

#include "failing.h"
#include "plugin/host.h"
#include "request.h"
#include "settings.h"
#include "transfer.h"

enum { MESSAGES = 3, BODY_BYTES = 2048 };

static struct option_set options;
static struct host host;
static struct settings *settings;

static struct outbox_bytes of(const char *text)
{
    return (struct outbox_bytes){text, strlen(text)};
}

static const struct outbox_message *message_number(size_t at)
{
    static const struct outbox_header headers[] = {{{"X-One", 5}, {"x", 1}, OUTBOX_VALUE_STRING}};
    static const char *const types[MESSAGES] = {"application/json", "text/plain", "application/octet-stream"};
    static const struct outbox_bytes payloads[MESSAGES] = {{"{\"a\":1}", 7}, {"words", 5}, {"\xff\xfe", 2}};
    static struct outbox_message message;
    message = (struct outbox_message){.size = sizeof message,
                                      .id = of("id"),
                                      .channel = of("orders"),
                                      .type = of("order.placed"),
                                      .key = of("key"),
                                      .correlation_id = of("correlation"),
                                      .content_type = of(types[at]),
                                      .payload = payloads[at],
                                      .headers = headers,
                                      .header_count = 1,
                                      .created_at_us = 1000000,
                                      .ttl_ms = -1,
                                      .flags = at == 0 ? OUTBOX_MESSAGE_IS_JSON : 0};
    return &message;
}

static size_t count_headers(const struct transfer *transfer)
{
    size_t count = 0;
    for (const struct curl_slist *line = transfer->headers; line; line = line->next) {
        count++;
    }
    return count;
}

static void check_request(const struct transfer *transfer, size_t at)
{
    static char bodies[MESSAGES][BODY_BYTES];
    static size_t headers[MESSAGES];
    char body[BODY_BYTES];
    (void)snprintf(body, sizeof body, "%.*s", (int)transfer->body_bytes, transfer->body);
    if (failing_is_first()) {
        memcpy(bodies[at], body, sizeof body);
        headers[at] = count_headers(transfer);
    }
    PROMISE(strcmp(bodies[at], body) == 0, "a request with the whole event");
    PROMISE(headers[at] == count_headers(transfer), "a request with every header");
}

static void prepare(void)
{
    struct session session = {.settings = settings};
    struct transfer transfer;
    if (transfer_init(&transfer, &session) != 0) {
        PROMISE(failing_stop(), "without a shortage there is a handle");
        return;
    }
    for (size_t at = 0; at < MESSAGES; at++) {
        char reason[REASON_BYTES] = "";
        enum outbox_verdict verdict = request_prepare(&transfer, message_number(at), 1000, reason);
        if (verdict == OUTBOX_UNSETTLED) {
            check_request(&transfer, at);
        } else {
            PROMISE(verdict == OUTBOX_RETRY && reason[0], "a good message is tried again, not set aside");
            PROMISE(failing_stop(), "without a shortage there is a request");
        }
        transfer_reset(&transfer);
    }
    (void)failing_stop();
    transfer_finish(&transfer);
}

static void read_settings(void)
{
    struct settings *read = NULL;
    struct outbox_error error = {.size = sizeof error};
    int result = settings_new(&read, &host.services, &host.settings, &error);
    bool failed = failing_stop();
    if (result == 0) {
        PROMISE(read->cloudevents == CLOUDEVENTS_STRUCTURED && read->key_count == 1, "the settings");
        settings_free(read);
    } else {
        PROMISE(failed && error.text[0], "who refuses says why");
    }
}

static void set(const char *name, const char *value)
{
    struct err err = {0};
    PROMISE(option_assign(&options, option_find(&options, name), value, OPTION_FLAG, "-o", &err) == 0,
            "an option");
}

int main(void)
{
    static const struct log log = {LOG_ERROR, LOG_FORMAT_TEXT, -1};
    struct err err = {0};
    struct outbox_error error = {.size = sizeof error};
    PROMISE(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, "libcurl");
    PROMISE(option_set_init(&options, "http", http_options, 0, &err) == 0, "options");
    set("url", "https://host.example/${channel}");
    set("cloudevents", "structured");
    set("hosts", "*.example");
    set("bearer_token", "token");
    set("secret", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz");
    host_init(&host, &options, "http", "torture", &log);
    PROMISE(settings_new(&settings, &host.services, &host.settings, &error) == 0, "settings");
    torture("http settings", read_settings);
    torture("http requests", prepare);
    settings_free(settings);
    option_set_finish(&options);
    curl_global_cleanup();
    return 0;
}
