/* torture_stdout - a backend from open() to close() in a shortage of memory: what it confirms stands whole in
 * its output, and nothing else stands there. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "failing.h"
#include "plugin/backend.h"

enum { ROWS = 3, OUTPUT_BYTES = 4096 };

static int output = -1;
static struct option_set no_options;
static char lines[ROWS][OUTPUT_BYTES]; /* what the first walk wrote for each */

static struct outbox_bytes of(const char *text)
{
    return (struct outbox_bytes){text, strlen(text)};
}

static void fill(struct batch *batch)
{
    static const struct outbox_header headers[] = {{{"s", 1}, {"x", 1}, OUTBOX_VALUE_STRING},
                                                   {{"i", 1}, {"7", 1}, OUTBOX_VALUE_INT}};
    static const char *const types[ROWS] = {"application/json", "text/plain", "application/octet-stream"};
    static const struct outbox_bytes payloads[ROWS] = {{"{\"a\":1}", 7}, {"words", 5}, {"\xff\xfe", 2}};
    for (size_t at = 0; at < ROWS; at++) {
        struct outbox_message *message = &batch_add(batch)->message;
        message->id = of("id");
        message->channel = of("orders");
        message->type = of("order.placed");
        message->key = of("key");
        message->correlation_id = of("correlation");
        message->content_type = of(types[at]);
        message->payload = payloads[at];
        message->headers = headers;
        message->header_count = 2;
        message->flags = at == 0 ? OUTBOX_MESSAGE_IS_JSON : 0;
    }
}

static void check_output(const struct batch *batch, bool failed)
{
    static char text[ROWS * OUTPUT_BYTES];
    ssize_t len = pread(output, text, sizeof text - 1, 0);
    PROMISE(len >= 0, "the output can be read");
    text[len] = '\0';
    const char *at = text;
    for (size_t row = 0; row < batch->count; row++) {
        PROMISE(failed || batch->rows[row].verdict == OUTBOX_CONFIRMED, "without a shortage all goes out");
        PROMISE(batch->rows[row].verdict != OUTBOX_REJECTED, "a good row is not set aside");
        if (batch->rows[row].verdict != OUTBOX_CONFIRMED) {
            continue;
        }
        if (failing_is_first()) {
            (void)snprintf(lines[row], OUTPUT_BYTES, "%.*s", (int)strcspn(at, "\n") + 1, at);
        }
        PROMISE(strncmp(at, lines[row], strlen(lines[row])) == 0, "what is confirmed was written whole");
        at += strlen(lines[row]);
    }
    PROMISE(*at == '\0', "what was not confirmed was not written");
}

/* True if the session said OK. */
static bool publish(struct batch *batch, struct err *err)
{
    static const struct log log = {LOG_ERROR, LOG_FORMAT_TEXT, -1};
    struct backend *backend = NULL;
    struct session *session = NULL;
    int64_t deadline_ms = clock_now_ms() + 10000;
    int64_t retry_after_ms = 0;
    bool good = backend_open(&backend, backend_find("stdout"), &no_options, "torture", &log, err) == 0 &&
                backend_session_new(&session, backend, err) == 0 &&
                backend_connect(session, deadline_ms, err) == 0 &&
                backend_publish(session, batch, deadline_ms, &retry_after_ms, err) == OUTBOX_SESSION_OK;
    backend_session_free(session);
    backend_close(backend);
    return good;
}

static void use_stdout(void)
{
    struct batch batch;
    struct err err = {0};
    int terminal = dup(STDOUT_FILENO);
    PROMISE(terminal >= 0 && ftruncate(output, 0) == 0 && lseek(output, 0, SEEK_SET) == 0, "an empty output");
    PROMISE(dup2(output, STDOUT_FILENO) == STDOUT_FILENO, "an output");
    if (batch_init(&batch, ROWS, &err) == 0) {
        fill(&batch);
        bool good = publish(&batch, &err);
        bool failed = failing_stop();
        PROMISE(good || (failed && err.text[0]), "who fails says why");
        if (good || batch.lent.count > 0) {
            check_output(&batch, failed);
        }
        batch_finish(&batch);
    }
    (void)dup2(terminal, STDOUT_FILENO);
    (void)close(terminal);
}

int main(void)
{
    struct err err = {0};
    output = memfd_create("output", 0);
    PROMISE(output >= 0, "a file in memory");
    PROMISE(backend_options(&no_options, backend_find("stdout"), &err) == 0, "options");
    torture("stdout", use_stdout);
    option_set_finish(&no_options);
    return 0;
}
