#include "publish.h"

#include <poll.h>
#include <stdio.h>

#include "connection.h"
#include "declare.h"
#include "envelope.h"
#include "frames.h"

/* How many messages go out before we look whether something came in; how long after a refusal the channel is
 * opened anew. */
enum {
    LOOK_EVERY = 64,
    RENEW_AFTER_MS = 2000,
    BLOCKED_WAIT_MS = 500,
    FULL_WAIT_MS = 20,
    LARGE_BYTES = 64 << 10
};

/* Whether sending may go on after a step. */
enum step { STEP_GO_ON = 0, STEP_BLOCKED, STEP_LOST };

static enum step blocked(struct session *session, struct outbox_error *error)
{
    (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "the broker blocks publishers: %s",
                        session->blocked_reason);
    return STEP_BLOCKED;
}

/* The deadline has passed. */
static enum step late(struct session *session, struct outbox_error *error)
{
    if (session->blocked) {
        return blocked(session, error);
    }
    (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE,
                        "%zu messages were not confirmed within publish_timeout",
                        session->confirms.outstanding);
    return STEP_LOST;
}

/* A broker that blocks us may still confirm what it had read; it does not read the rest, and nobody knows for
 * how long. */
static int64_t patient_until(const struct session *session, int64_t deadline_ms)
{
    int64_t until_ms = session->blocked_at_ms + BLOCKED_WAIT_MS;
    return session->blocked && until_ms < deadline_ms ? until_ms : deadline_ms;
}

/* Waits until at most `most` messages are unconfirmed. */
static enum step await_confirms(struct session *session, size_t most, int64_t deadline_ms,
                                struct outbox_error *error)
{
    while (session->confirms.outstanding > most) {
        int64_t until_ms = patient_until(session, deadline_ms);
        enum frames_result result = frames_pump(session, until_ms, error);
        if (result == FRAMES_LOST) {
            return STEP_LOST;
        }
        if (result == FRAMES_NONE) {
            return late(session, error);
        }
    }
    return STEP_GO_ON;
}

/* Can more be written without waiting? */
static bool is_writable(const struct session *session)
{
    struct pollfd socket = {.fd = session->interrupt_fd, .events = POLLOUT};
    return poll(&socket, 1, 0) != 0;
}

/* Also finds a dead peer, and an alarm, before librabbitmq would hang on them: its publish waits without a
 * limit where the socket is full. */
static enum step look(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    enum frames_result result = frames_drain(session, error);
    while (result != FRAMES_LOST && !session->blocked && !is_writable(session)) {
        int64_t slice_ms = session_now_ms() + FULL_WAIT_MS;
        if (session_now_ms() >= deadline_ms) {
            return late(session, error);
        }
        result = frames_pump(session, slice_ms < deadline_ms ? slice_ms : deadline_ms, error);
    }
    return result == FRAMES_LOST ? STEP_LOST : session->blocked ? STEP_BLOCKED : STEP_GO_ON;
}

static enum step send_one(struct session *session, size_t index, const struct envelope *envelope,
                          struct outbox_error *error)
{
    const struct outbox_message *message = session->batch->messages[index];
    const amqp_bytes_t body = {.len = message->payload.len, .bytes = (void *)message->payload.ptr};
    int status =
        amqp_basic_publish(session->connection, CHANNEL_PUBLISH, amqp_cstring_bytes(envelope->exchange),
                           amqp_cstring_bytes(envelope->routing_key), 1, 0, &envelope->properties, body);
    /* Even a publish that failed may have left a part of itself on the wire: it counts as in flight. */
    confirms_published(&session->confirms, index, message->seq,
                       envelope_id_hash(message->id.ptr, message->id.len));
    if (status != AMQP_STATUS_OK) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot publish: %s",
                            amqp_error_string2(status));
        return STEP_LOST;
    }
    return STEP_GO_ON;
}

/* Settled, then. */
static bool is_expired(struct session *session, size_t index)
{
    struct outbox_batch *batch = session->batch;
    bool expired = session_ttl_ms(session, batch->messages[index]) == 0;
    if (expired) {
        batch->settle(batch, index, OUTBOX_UNSETTLED, "it expired before it could be sent", 0);
    }
    return expired;
}

static enum step publish_one(struct session *session, size_t index, int64_t deadline_ms,
                             struct outbox_error *error)
{
    struct envelope envelope;
    char reason[256];
    const char *missing = NULL;
    struct outbox_batch *batch = session->batch;
    if (is_expired(session, index)) {
        return STEP_GO_ON;
    }
    enum outbox_verdict verdict = envelope_seal(session, batch->messages[index], &envelope, reason);
    if (verdict != OUTBOX_UNSETTLED) {
        batch->settle(batch, index, verdict, reason, 0);
        return STEP_GO_ON;
    }
    switch (declare_exchange(session, envelope.exchange, deadline_ms, &missing, error)) {
    case EXCHANGE_EXISTS:
        break;
    case EXCHANGE_FAILED:
        batch->settle(batch, index, OUTBOX_HOLD, missing, 0);
        return STEP_GO_ON;
    case EXCHANGE_UNKNOWN:
        return STEP_LOST;
    case EXCHANGE_ASKED: /* no answer until the deadline: in an alarm the broker does not read */
        return late(session, error);
    }
    enum step step =
        await_confirms(session, (size_t)session->settings->max_unconfirmed - 1, deadline_ms, error);
    if (step != STEP_GO_ON) {
        return step;
    }
    if (is_expired(session, index)) {
        return STEP_GO_ON;
    }
    if (batch->messages[index]->ttl_ms >= 0) { /* less is left of its life than before the waits */
        verdict = envelope_seal(session, batch->messages[index], &envelope, reason);
    }
    if (verdict != OUTBOX_UNSETTLED) {
        batch->settle(batch, index, verdict, reason, 0);
        return STEP_GO_ON;
    }
    return send_one(session, index, &envelope, error);
}

static bool is_large(const struct session *session, size_t index)
{
    return index < session->batch->count && session->batch->messages[index]->payload.len > LARGE_BYTES;
}

/* Sends messages from *next on, until the end, an alarm or a loss; *next is the first that was not sent. */
static enum step publish_from(struct session *session, size_t *next, int64_t deadline_ms,
                              struct outbox_error *error)
{
    enum step step = look(session, deadline_ms, error);
    while (*next < session->batch->count && step == STEP_GO_ON) {
        if (session_now_ms() >= deadline_ms) {
            return late(session, error);
        }
        size_t in_flight = session->confirms.count;
        step = publish_one(session, *next, deadline_ms, error);
        *next += step == STEP_GO_ON || session->confirms.count > in_flight;
        if (step == STEP_GO_ON && (*next % LOOK_EVERY == 0 || is_large(session, *next))) {
            step = look(session, deadline_ms, error);
        }
    }
    return step;
}

/* An alarm that ends before the deadline only delays the batch. */
static enum step publish_all(struct session *session, size_t *next, int64_t deadline_ms,
                             struct outbox_error *error)
{
    for (;;) {
        enum step step = publish_from(session, next, deadline_ms, error);
        if (step == STEP_LOST) {
            return step;
        }
        step = await_confirms(session, 0, deadline_ms, error);
        if (step == STEP_GO_ON && session->blocked) {
            step = blocked(session, error);
        }
        if (step != STEP_GO_ON || *next == session->batch->count) {
            return step;
        }
    }
}

/*
 * A channel that was opened while a quorum queue had no leader is refused for ever, whoever leads the queue
 * since (seen on RabbitMQ 3.10: each channel remembers where it found the leader when it first published). So
 * a refusal some time ago is reason for another channel: three round trips, where the queue was only full.
 * Where answers of the old channel may still be on their way, they would be taken for those of the new one,
 * whose tags count from 1 again: then the connection goes.
 */
static enum step renew_if_refused(struct session *session, int64_t deadline_ms, struct outbox_error *error)
{
    if (session->refused_at_ms == 0 || session_now_ms() - session->refused_at_ms < RENEW_AFTER_MS) {
        return STEP_GO_ON;
    }
    enum step step = look(session, deadline_ms, error);
    if (step != STEP_GO_ON) {
        return step;
    }
    if (session->confirms.stale) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE,
                            "the broker refuses messages, and has not answered for earlier ones");
        return STEP_LOST;
    }
    return connection_renew_channel(session, deadline_ms, error) == 0 ? STEP_GO_ON : STEP_LOST;
}

enum outbox_session_state publish_batch(struct session *session, struct outbox_batch *batch,
                                        int64_t deadline_ms, struct outbox_error *error)
{
    session->began_ms = session_now_ms();
    exchanges_forget_failures(&session->exchanges);
    if (confirms_begin(&session->confirms, batch->count) != 0) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
        return OUTBOX_SESSION_LOST;
    }
    size_t next = 0;
    enum step step = renew_if_refused(session, deadline_ms, error);
    session->batch = batch;
    if (step != STEP_LOST) {
        step = publish_all(session, &next, deadline_ms, error);
    }
    session->batch = NULL;
    for (; next < batch->count; next++) {
        batch->settle(batch, next, OUTBOX_UNSETTLED, "it was not sent", 0);
    }
    confirms_end(&session->confirms);
    if (step == STEP_LOST) {
        return OUTBOX_SESSION_LOST;
    }
    return step == STEP_BLOCKED ? OUTBOX_SESSION_BUSY : OUTBOX_SESSION_OK;
}
