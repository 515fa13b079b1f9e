#include "publish.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lanes.h"
#include "request.h"
#include "status.h"
#include "transfer.h"

/* Six of the last eight answers of a channel: the rest of it would meet the same wall. */
enum { WAIT_MS = 1000, SETTLE_MARGIN_MS = 20, LAST_ANSWERS = 8, WALL_HOLDS = 6 };

/* Why the rest of a channel is not sent in this batch: its destination said so about messages of it. */
struct rest {
    char *reason; /* NULL = it does not rest */
    int64_t retry_after_ms;
    unsigned held; /* its last answers, a bit each */
};

struct run {
    struct session *session;
    struct outbox_batch *batch;
    struct outbox_error *error;
    struct lanes lanes;
    struct rest *rests; /* by the number of the channel */
    int64_t began_ms;
    int64_t deadline_ms;
    int64_t last_start_ms; /* no request starts later */
    size_t started;
    size_t in_flight;
    size_t silent;   /* requests that began and got no answer */
    size_t answered; /* messages with a verdict, "not sent" being none */
    bool lost;
};

static void settle(struct run *run, size_t index, enum outbox_verdict verdict, const char *reason,
                   int64_t retry_after_ms)
{
    run->batch->settle(run->batch, index, verdict, reason, retry_after_ms);
    run->answered += verdict != OUTBOX_UNSETTLED;
    lanes_done(&run->lanes, index);
}

/* True if most of the last answers of its channel said so. */
static bool note_answer(struct run *run, size_t index, bool held)
{
    struct rest *rest = &run->rests[run->lanes.channel[index]];
    unsigned holds = 0;
    rest->held = (rest->held << 1 | held) & ((1U << LAST_ANSWERS) - 1);
    for (unsigned bits = rest->held; bits != 0; bits &= bits - 1) {
        holds++;
    }
    return holds >= WALL_HOLDS;
}

/* wall: the rest of the channel is held likewise, unsent. */
static void hold(struct run *run, size_t index, const char *reason, int64_t retry_after_ms, bool wall)
{
    struct rest *rest = &run->rests[run->lanes.channel[index]];
    if (wall && !rest->reason) {
        rest->reason = strdup(reason);
        rest->retry_after_ms = retry_after_ms;
    }
    settle(run, index, OUTBOX_HOLD, reason, retry_after_ms);
}

/* ---- starting ---- */

static struct transfer *take_transfer(struct session *session)
{
    struct transfer *transfer = session->free_list;
    if (transfer) {
        session->free_list = transfer->next_free;
        return transfer;
    }
    if (session->created == session->settings->max_in_flight) {
        return NULL;
    }
    transfer = &session->transfers[session->created];
    if (transfer_init(transfer, session) != 0) {
        return NULL;
    }
    session->created++;
    return transfer;
}

static void give_back(struct session *session, struct transfer *transfer)
{
    transfer_reset(transfer);
    transfer->next_free = session->free_list;
    session->free_list = transfer;
}

/* Its time ran out while others were on their way: the core sees to that. */
static bool is_expired(const struct run *run, size_t index)
{
    int64_t ttl_ms = run->batch->messages[index]->ttl_ms;
    return ttl_ms >= 0 && session_now_ms() - run->began_ms >= ttl_ms;
}

static int64_t timeout_of(const struct run *run)
{
    int64_t timeout_ms = run->session->settings->timeout_ms;
    int64_t left_ms = session_left_ms(run->deadline_ms) - SETTLE_MARGIN_MS;
    timeout_ms = timeout_ms < left_ms ? timeout_ms : left_ms;
    return timeout_ms > 1 ? timeout_ms : 1;
}

static void start(struct run *run, struct transfer *transfer, size_t index)
{
    struct session *session = run->session;
    char reason[REASON_BYTES];
    enum outbox_verdict verdict =
        request_prepare(transfer, run->batch->messages[index], timeout_of(run), reason);
    transfer->index = index;
    if (verdict == OUTBOX_UNSETTLED && curl_multi_add_handle(session->multi, transfer->easy) == CURLM_OK) {
        run->in_flight++;
        run->started++;
        return;
    }
    if (verdict == OUTBOX_UNSETTLED) {
        settle(run, index, OUTBOX_RETRY, "the request could not be started: out of memory", 0);
    } else {
        settle(run, index, verdict, reason, 0);
    }
    give_back(session, transfer);
}

/* The first requests may start later than the others: a timeout as long as the batch's would allow none. But
 * large ones take their time to be prepared, and the deadline is everybody's. */
static bool may_start(const struct run *run)
{
    bool first = run->started < run->session->settings->max_in_flight &&
                 session_left_ms(run->deadline_ms) > SETTLE_MARGIN_MS;
    bool in_time = session_now_ms() < run->last_start_ms || first;
    return in_time && !run->lost && run->lanes.ready_count > 0;
}

/* As many as may be on their way at once. */
static void start_more(struct run *run)
{
    while (may_start(run)) {
        struct transfer *transfer = take_transfer(run->session);
        if (!transfer) {
            return;
        }
        size_t index = lanes_take(&run->lanes);
        const struct rest *rest = &run->rests[run->lanes.channel[index]];
        if (rest->reason) {
            settle(run, index, OUTBOX_HOLD, rest->reason, rest->retry_after_ms);
            give_back(run->session, transfer);
        } else if (is_expired(run, index)) {
            settle(run, index, OUTBOX_UNSETTLED, "it expired before it could be sent", 0);
            run->answered++;
            give_back(run->session, transfer);
        } else {
            start(run, transfer, index);
        }
    }
}

/* ---- finishing ---- */

/*
 * The request had not begun. With one host for all it is the session that is lost, unless the request only
 * waited for a connection; with a host for each channel, the channel rests; with a host for each message, it
 * is that message's matter.
 */
static void not_connected(struct run *run, size_t index, CURLcode result, const char *reason)
{
    const struct settings *settings = run->session->settings;
    if (settings->one_host) {
        run->lost = run->lost || result != CURLE_OPERATION_TIMEDOUT;
        (void)settings_error(run->error, OUTBOX_ERROR_UNAVAILABLE, "%s", reason);
        settle(run, index, OUTBOX_UNSETTLED, reason, 0);
    } else if (settings->host_per_message) {
        settle(run, index, OUTBOX_RETRY, reason, 0);
    } else {
        hold(run, index, reason, 0, true);
    }
}

static enum outbox_verdict verdict_of(const struct transfer *transfer)
{
    enum outbox_verdict verdict =
        transfer->final_status > 0 ? status_verdict(transfer->final_status) : OUTBOX_RETRY;
    if (verdict == OUTBOX_CONFIRMED && !transfer_sent_all(transfer)) {
        return OUTBOX_RETRY; /* nobody can have taken what nobody has */
    }
    return verdict;
}

static void finish(struct run *run, struct transfer *transfer, CURLcode result)
{
    char reason[REASON_BYTES];
    size_t index = transfer->index;
    /* 101 has no section behind it; any other status counts only when its own is complete. */
    if (result == CURLE_OK && transfer->final_status == 0 && transfer->status < 200) {
        transfer->final_status = transfer->status;
    }
    enum outbox_verdict verdict = verdict_of(transfer);
    bool wall = transfer->final_status > 0 && note_answer(run, index, verdict == OUTBOX_HOLD);
    if (transfer->final_status > 0) {
        transfer_note_version(transfer);
    }
    if (verdict == OUTBOX_CONFIRMED) {
        settle(run, index, verdict, NULL, 0);
        return;
    }
    transfer_describe(transfer, result, reason);
    if (transfer->final_status == 0 && transfer_never_connected(transfer, result)) {
        not_connected(run, index, result, reason);
    } else if (verdict == OUTBOX_HOLD) {
        int64_t retry_after_ms = status_retry_after_ms(transfer->retry_after, (int64_t)time(NULL));
        hold(run, index, reason, retry_after_ms, wall || retry_after_ms > 0);
    } else {
        run->silent += transfer->final_status == 0;
        settle(run, index, verdict, reason, 0);
    }
}

/* The connection had something to say before it was asked, and is given up. Where it had served before, the
 * request, of which nothing was sent, goes on a new one. */
static bool ask_again(struct run *run, struct transfer *transfer)
{
    CURLM *multi = run->session->multi;
    bool in_time = session_left_ms(run->deadline_ms) > SETTLE_MARGIN_MS && !is_expired(run, transfer->index);
    if (!transfer->spoken_to || !transfer->used || run->lost || !in_time ||
        curl_easy_setopt(transfer->easy, CURLOPT_FRESH_CONNECT, 1L) != CURLE_OK ||
        curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, (long)timeout_of(run)) != CURLE_OK ||
        curl_multi_remove_handle(multi, transfer->easy) != CURLM_OK) {
        return false;
    }
    transfer->spoken_to = transfer->used = false;
    return curl_multi_add_handle(multi, transfer->easy) == CURLM_OK;
}

static void take_back(struct run *run, struct transfer *transfer)
{
    (void)curl_multi_remove_handle(run->session->multi, transfer->easy);
    give_back(run->session, transfer);
    run->in_flight--;
}

static void finish_done(struct run *run)
{
    int more = 0;
    for (CURLMsg *message = NULL; (message = curl_multi_info_read(run->session->multi, &more)) != NULL;) {
        char *private = NULL;
        CURLcode result = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private) == CURLE_OK) {
            struct transfer *transfer = (struct transfer *)(void *)private;
            if (ask_again(run, transfer)) {
                continue;
            }
            finish(run, transfer, result);
            take_back(run, transfer);
        }
    }
}

/* Interrupted, or past the deadline: what is on its way may arrive or not; its settle is the core's to
 * decide. */
static void abandon_in_flight(struct run *run)
{
    for (size_t at = 0; at < run->session->created && run->in_flight > 0; at++) {
        struct transfer *transfer = &run->session->transfers[at];
        if (transfer->headers) { /* only those on their way have any */
            if (transfer->final_status > 0) {
                finish(run, transfer, CURLE_OK);
            } else {
                lanes_done(&run->lanes, transfer->index); /* without settle(): a possible duplicate */
            }
            take_back(run, transfer);
        }
    }
}

static void drive(struct run *run)
{
    struct session *session = run->session;
    int running = 0;
    for (;;) {
        start_more(run);
        if (run->in_flight == 0) { /* done, out of time, or out of memory for even one */
            return;
        }
        CURLMcode result = curl_multi_perform(session->multi, &running);
        finish_done(run);
        bool interrupted = atomic_load(&session->interrupted);
        if (result != CURLM_OK || interrupted || session_left_ms(run->deadline_ms) == 0) {
            run->lost = true;
            (void)settings_error(run->error, OUTBOX_ERROR_UNAVAILABLE, "%s",
                                 result != CURLM_OK ? curl_multi_strerror(result)
                                 : interrupted      ? "interrupted"
                                                    : "the deadline passed with requests in flight");
            abandon_in_flight(run);
            return;
        }
        if (running > 0) {
            int64_t left_ms = session_left_ms(run->deadline_ms);
            (void)curl_multi_poll(session->multi, NULL, 0, left_ms < WAIT_MS ? (int)left_ms : WAIT_MS, NULL);
        }
    }
}

/* What was not sent says so: it cannot have arrived. Its lane may hold more that never became ready. */
static void settle_unsent(struct run *run)
{
    static const char reason[] = "not sent: no time was left in this batch";
    for (size_t index = lanes_take(&run->lanes); index != LANES_NONE; index = lanes_take(&run->lanes)) {
        const struct rest *rest = &run->rests[run->lanes.channel[index]];
        settle(run, index, rest->reason ? OUTBOX_HOLD : OUTBOX_UNSETTLED,
               rest->reason ? rest->reason : reason, rest->retry_after_ms);
    }
}

static int prepare(struct run *run)
{
    run->rests = NULL;
    if (lanes_init(&run->lanes, run->batch) != 0) {
        return -1;
    }
    run->rests = calloc(run->lanes.channel_count + 1, sizeof *run->rests);
    return run->rests ? 0 : -1;
}

static void clean_up(struct run *run)
{
    for (size_t at = 0; run->rests && at < run->lanes.channel_count; at++) {
        free(run->rests[at].reason);
    }
    free(run->rests);
    lanes_finish(&run->lanes);
}

enum outbox_session_state publish_batch(struct session *session, struct outbox_batch *batch,
                                        int64_t deadline_ms, struct outbox_error *error)
{
    int64_t now_ms = session_now_ms();
    struct run run = {.session = session,
                      .batch = batch,
                      .error = error,
                      .began_ms = now_ms,
                      .deadline_ms = deadline_ms,
                      .last_start_ms = deadline_ms - session->settings->timeout_ms};
    if (deadline_ms <= now_ms) {
        (void)settings_error(error, OUTBOX_ERROR_UNAVAILABLE,
                             "the deadline had passed before anything was sent");
        return OUTBOX_SESSION_LOST;
    }
    if (prepare(&run) != 0) {
        clean_up(&run);
        (void)settings_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
        return OUTBOX_SESSION_LOST;
    }
    drive(&run);
    settle_unsent(&run);
    clean_up(&run);
    if (run.silent > 0) { /* a network may have forgotten them, and HTTP/2 would use them for ever */
        session_drop_connections(session);
    }
    if (!session->multi || (!run.lost && batch->count > 0 && run.answered == 0)) {
        if (error->text[0] == '\0') {
            (void)settings_error(error, OUTBOX_ERROR_UNAVAILABLE,
                                 "nothing could be sent: no time, or no memory");
        }
        return OUTBOX_SESSION_LOST;
    }
    return run.lost ? OUTBOX_SESSION_LOST : OUTBOX_SESSION_OK;
}
