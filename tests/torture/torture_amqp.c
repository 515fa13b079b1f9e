/* torture_amqp - envelopes and confirms in a shortage of memory: a message is sealed whole or waits, and what
 * came back is not confirmed. */
#include <string.h>

#include "envelope.h"
#include "failing.h"
#include "plugin/backend.h"
#include "plugin/host.h"

enum { HEADERS = 40, MESSAGES = 5 };

static struct option_set options;
static struct host host;
static struct settings settings;
static enum confirm_result results[MESSAGES];

static struct outbox_bytes of(const char *text)
{
    return (struct outbox_bytes){text, strlen(text)};
}

static void seal(void)
{
    static struct outbox_header headers[HEADERS];
    static char names[HEADERS][8];
    struct session session = {.settings = &settings, .frame_max = 131072, .broker = {"", 128 << 20}};
    struct outbox_message message = {.size = sizeof message,
                                     .id = of("id"),
                                     .channel = of("orders"),
                                     .key = of("key"),
                                     .content_type = of("text/plain"),
                                     .payload = of("words"),
                                     .headers = headers,
                                     .ttl_ms = -1};
    for (size_t at = 0; at < HEADERS; at++) {
        (void)snprintf(names[at], sizeof names[at], "h%zu", at);
        headers[at] = (struct outbox_header){of(names[at]), of("7"), OUTBOX_VALUE_INT};
    }
    for (message.header_count = 1; message.header_count <= HEADERS; message.header_count *= 3) {
        struct envelope envelope;
        char reason[256] = "";
        enum outbox_verdict verdict = envelope_seal(&session, &message, &envelope, reason);
        if (verdict == OUTBOX_UNSETTLED) {
            PROMISE(envelope.properties.headers.num_entries == (int)message.header_count + 2, "all headers");
        } else {
            PROMISE(verdict == OUTBOX_HOLD && reason[0], "a good message waits, it is not set aside");
            PROMISE(failing_stop(), "without a shortage a good message is sealed");
        }
    }
    (void)failing_stop();
    free(session.entries);
}

static void settled(void *context, size_t index, enum confirm_result result, const char *reply)
{
    (void)context;
    PROMISE(reply && reply[0], "a reply, be it another");
    results[index] = result;
}

static void confirm(void)
{
    struct confirms confirms = {0};
    confirms_reset(&confirms);
    if (confirms_begin(&confirms, MESSAGES) != 0) {
        PROMISE(failing_stop(), "without a shortage a batch begins");
        return;
    }
    for (size_t at = 0; at < MESSAGES; at++) {
        confirms_published(&confirms, at, 100 + (int64_t)at, 7);
    }
    PROMISE(confirms_returned(&confirms, 101, 7, "no route") &&
                confirms_returned(&confirms, 103, 7, "no route"),
            "what is in flight can come back");
    PROMISE(confirms_answer(&confirms, 5, true, true, settled, NULL), "an answer");
    (void)failing_stop();
    for (size_t at = 0; at < MESSAGES; at++) {
        PROMISE(results[at] == (at == 1 || at == 3 ? CONFIRM_RETURNED : CONFIRM_ACKED),
                "what came back is not confirmed");
    }
    confirms_finish(&confirms);
}

int main(void)
{
    static const struct log log = {LOG_ERROR, LOG_FORMAT_TEXT, -1};
    struct err err = {0};
    struct outbox_error error = {.size = sizeof error};
    PROMISE(option_set_init(&options, "amqp", amqp_options, 0, &err) == 0, "options");
    host_init(&host, &options, "amqp", "torture", &log);
    PROMISE(settings_read(&settings, &host.services, &host.settings, &error) == 0, "settings");
    torture("envelopes", seal);
    torture("confirms", confirm);
    option_set_finish(&options);
    return 0;
}
