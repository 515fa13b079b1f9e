/*
 * fuzz_retry_after - any bytes as an HTTP answer, cut into lines as libcurl hands them over: no status
 * without a whole header section, no wait outside 1 s .. 24 h, nothing but 2xx confirms.
 */
#include "transfer.c" /* what reads an answer's lines is static there */

#include "fuzz.h"
#include "status.h"

enum { LATEST_ANSWER_S = 1 << 30 };

static void check(const struct transfer *transfer, int64_t now_s)
{
    int64_t wait_ms = status_retry_after_ms(transfer->retry_after, now_s);
    PROMISE(memchr(transfer->retry_after, '\0', sizeof transfer->retry_after), "the field's text ends");
    PROMISE(wait_ms == 0 || (wait_ms >= 1000 && wait_ms <= 86400000), "a wait of 1 s .. 24 h");
    PROMISE(transfer->final_status == 0 || transfer->final_status >= 200, "1xx answers are not final");
    PROMISE(status_verdict(transfer->final_status) != OUTBOX_CONFIRMED ||
                (transfer->final_status >= 200 && transfer->final_status <= 299),
            "nothing but 2xx confirms");
    PROMISE(strlen(transfer->excerpt) <= transfer->excerpt_len && transfer->excerpt_len <= EXCERPT_BYTES,
            "the excerpt ends");
}

/* What the answer's first bytes would do as the field's value, whatever line they came in. */
static void parse_value(const char *bytes, size_t len, int64_t now_s)
{
    char value[RETRY_AFTER_BYTES];
    (void)snprintf(value, sizeof value, "%.*s", (int)(len < sizeof value ? len : sizeof value - 1), bytes);
    int64_t wait_ms = status_retry_after_ms(value, now_s);
    PROMISE(wait_ms == 0 || (wait_ms >= 1000 && wait_ms <= 86400000), "a wait of 1 s .. 24 h");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct settings settings = {.max_response_bytes = 1 << 16};
    struct session session = {.settings = &settings};
    struct transfer transfer = {.session = &session};
    int64_t now_s = bytes > 0 ? (int64_t)data[0] << 22 : LATEST_ANSWER_S; /* dates lie ahead and behind */
    char *copy = malloc(bytes + 1); /* libcurl's lines are not const, and end where its buffer may */
    PROMISE(copy, "memory");
    memcpy(copy, data, bytes);
    parse_value(copy, bytes, now_s);
    for (size_t at = 0; at < bytes;) {
        char *end = memchr(copy + at, '\n', bytes - at);
        size_t len = end ? (size_t)(end - (copy + at)) + 1 : bytes - at;
        bool head = transfer.final_status == 0;
        size_t taken =
            head ? see_header(copy + at, 1, len, &transfer) : see_body(copy + at, 1, len, &transfer);
        PROMISE(taken == len || taken == 0, "all of it, or an end");
        check(&transfer, now_s);
        at += len;
    }
    free(copy);
    return 0;
}
