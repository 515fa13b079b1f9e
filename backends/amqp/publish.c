#include "publish.h"

#include <stdio.h>

#include "connection.h"
#include "declare.h"
#include "envelope.h"
#include "frames.h"

/* How many messages go out before we look whether something came in; how long after a refusal the channel is
 * opened anew. */
enum { LOOK_EVERY = 64, RENEW_AFTER_MS = 2000 };

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

/* Waits until at most `most` messages are unconfirmed. */
static enum step await_confirms(struct session *session, size_t most, int64_t deadline_ms,
                                struct outbox_error *error)
{
    while (session->confirms.outstanding > most) {
        enum frames_result result = frames_pump(session, deadline_ms, error);
        if (result == FRAMES_LOST) {
            return STEP_LOST;
        }
        if (result == FRAMES_NONE) {
            return late(session, error);
        }
    }
    return STEP_GO_ON;
}

/* Also finds a dead peer before librabbitmq 0.11 would hang on it: its publish waits without a limit then. */
static enum step look(struct session *session, struct outbox_error *error)
{
    if (frames_drain(session, error) == FRAMES_LOST) {
        return STEP_LOST;
    }
    return session->blocked ? STEP_BLOCKED : STEP_GO_ON;
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
    confirms_published(&session->confirms, index, message->seq);
    if (status != AMQP_STATUS_OK) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot publish: %s",
                            amqp_error_string2(status));
        return STEP_LOST;
    }
    return STEP_GO_ON;
}

static enum step publish_one(struct session *session, size_t index, int64_t deadline_ms,
                             struct outbox_error *error)
{
    struct envelope envelope;
    char reason[256];
    const char *missing = NULL;
    struct outbox_batch *batch = session->batch;
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
    return step == STEP_GO_ON ? send_one(session, index, &envelope, error) : step;
}

/* Sends messages from *next on, until the end, an alarm or a loss; *next is the first that was not sent. */
static enum step publish_from(struct session *session, size_t *next, int64_t deadline_ms,
                              struct outbox_error *error)
{
    enum step step = look(session, error);
    while (*next < session->batch->count && step == STEP_GO_ON) {
        if (session_now_ms() >= deadline_ms) {
            return late(session, error);
        }
        size_t in_flight = session->confirms.count;
        step = publish_one(session, *next, deadline_ms, error);
        *next += step == STEP_GO_ON || session->confirms.count > in_flight;
        if (step == STEP_GO_ON && *next % LOOK_EVERY == 0) {
            step = look(session, error);
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
    enum step step = look(session, error);
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
