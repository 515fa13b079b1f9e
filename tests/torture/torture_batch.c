/*
 * torture_batch - rows, headers, verdicts and channels in a shortage of memory: nothing is confirmed that a
 * backend did not confirm, no good row is refused for ever, and no text is half.
 */
#include <string.h>

#include "base/clock.h"
#include "channels/channels.h"
#include "failing.h"
#include "message/batch.h"

enum { ROWS = 7 };

static char long_headers[40000]; /* more than a block of the arena */

/* What each row's headers are, and what the backend says of it. NULL = refused before. */
static const struct {
    const char *json;
    size_t headers;
    enum outbox_verdict verdict;
    const char *reason;
} rows[ROWS] = {
    {"{}", 0, OUTBOX_CONFIRMED, NULL},
    {"{\"s\":\"x\",\"i\":7,\"d\":1.5,\"t\":true,\"n\":null}", 5, OUTBOX_HOLD, "a queue is full"},
    {long_headers, 3, OUTBOX_RETRY, "no\nroute"},
    {"{\"a\":[1]}", 0, OUTBOX_REJECTED, NULL},
    {"{\"a\":1", 0, OUTBOX_REJECTED, NULL},
    {"{\"a\":\"b\"}", 1, OUTBOX_UNSETTLED, "not sent"},
    {"{\"e\":\"f\",\"g\":2}", 2, OUTBOX_REJECTED, "too large"},
};

static void check_headers(const struct row *row, size_t at, bool failed)
{
    bool malformed = rows[at].verdict == OUTBOX_REJECTED && !rows[at].reason;
    if (row->verdict == OUTBOX_UNSETTLED) {
        PROMISE(!malformed && row->message.header_count == rows[at].headers,
                "all headers of a row that goes out");
        for (size_t header = 0; header < row->message.header_count; header++) {
            PROMISE(row->message.headers[header].name.len > 0 && row->message.headers[header].name.ptr,
                    "a header with a name");
            PROMISE(row->message.headers[header].value.ptr, "a header with a value");
        }
    } else {
        PROMISE(malformed || failed, "without a shortage only malformed headers are refused");
        PROMISE(malformed || row->verdict == OUTBOX_HOLD, "a good row waits, it is not set aside");
        PROMISE(row->error && row->error[0], "who refuses says why");
    }
}

static void settle_all(struct batch *batch)
{
    struct outbox_batch *lent = batch_lend(batch, 0);
    for (size_t at = 0; at < lent->count; at++) {
        size_t row = (size_t)lent->messages[at]->seq;
        lent->settle(lent, at, rows[row].verdict, rows[row].reason, 0);
    }
    batch_take_back(batch, 0);
}

static void check_verdicts(const struct batch *batch, const bool went_out[ROWS])
{
    for (size_t at = 0; at < batch->count; at++) {
        const struct row *row = &batch->rows[at];
        PROMISE(!went_out[at] || row->verdict == rows[at].verdict, "the verdict is the backend's");
        PROMISE(went_out[at] || row->verdict != OUTBOX_CONFIRMED, "what did not go out is not confirmed");
        PROMISE(row->error, "a text, be it empty");
        PROMISE(!went_out[at] || !rows[at].reason || row->error[0], "a reason, be it another");
    }
}

static void use_batch(void)
{
    struct batch batch;
    struct err err = {0};
    bool went_out[ROWS] = {false};
    if (batch_init(&batch, ROWS, &err) != 0) {
        PROMISE(failing_stop() && err.text[0], "who refuses says why");
        batch_finish(&batch);
        return;
    }
    for (size_t at = 0; at < ROWS; at++) {
        struct row *row = batch_add(&batch);
        row->message.seq = (int64_t)at;
        batch_set_headers(&batch, row, (struct outbox_bytes){rows[at].json, strlen(rows[at].json)});
        went_out[at] = row->verdict == OUTBOX_UNSETTLED;
    }
    settle_all(&batch);
    bool failed = failing_stop();
    for (size_t at = 0; at < ROWS; at++) {
        struct row before = batch.rows[at];
        before.verdict = went_out[at] ? OUTBOX_UNSETTLED : before.verdict;
        check_headers(&before, at, failed);
    }
    check_verdicts(&batch, went_out);
    batch_finish(&batch);
}

/* ---- channels ---- */

static void see_rest(void *context, const struct channel_rest *rest)
{
    size_t *seen = context;
    PROMISE(rest->channel && rest->reason, "a rest with its texts");
    ++*seen;
}

static void use_channels(void)
{
    static const char *const names[] = {
        "orders",
        "a \"quoted\" one that is so long that the text of those that rest has to grow, and again, and again",
        "mails that go to somebody whose name is longer than anybody would believe who has not seen it, and "
        "on"
        "and on and on and on and on and on and on and on and on and on and on and on and on and on and on",
    };
    static char all[1024];
    struct channels *channels = NULL;
    struct text resting;
    struct err err = {0};
    size_t seen = 0;
    bool began = true;
    text_init(&resting, 4096);
    text_add(&resting, "{}");
    if (resting.overflow) {
        (void)failing_stop(); /* worker_new() refuses then, too */
        return;
    }
    if (channels_new(&channels, 4, 1000, 60000, &err) != 0) {
        PROMISE(failing_stop() && err.text[0], "who refuses says why");
        text_finish(&resting);
        return;
    }
    (void)channels_confirmed(channels, bytes_of("orders"), 5);
    for (size_t at = 0; at < 3; at++) {
        struct channel_news news;
        began = channels_hold(channels, bytes_of(names[at]), "its queue is full", 0, 10, &news) && began;
    }
    (void)channels_refused(channels, bytes_of("other"), 10);
    (void)channels_resting(channels, 11, &resting);
    bool failed = failing_stop();
    bool whole = text_get(&resting)[0] == '{' && resting.ptr[resting.len - 1] == '}' && !resting.overflow;
    PROMISE(whole, "the filter is whole");
    if (failing_is_first()) {
        (void)snprintf(all, sizeof all, "%s", resting.ptr);
    }
    PROMISE(failed || (began && strcmp(all, text_get(&resting)) == 0), "without a shortage everything rests");
    channels_working(channels, 11, &resting);
    PROMISE(strcmp(text_get(&resting), "{}") == 0, "no evidence out of nothing");
    channels_each_rest(channels, 11, see_rest, &seen);
    PROMISE(failed || seen == 3, "without a shortage everything rests");
    channels_free(channels);
    text_finish(&resting);
}

int main(void)
{
    char *end = long_headers + snprintf(long_headers, sizeof long_headers, "{\"a\":1,\"long\":\"");
    memset(end, 'x', 20000);
    (void)snprintf(end + 20000, 100, "\",\"z\":2}");
    torture("batch", use_batch);
    torture("channels", use_channels);
    return 0;
}
