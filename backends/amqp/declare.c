#include "declare.h"

#include "frames.h"

static int send_declare(struct session *session, const struct exchange *exchange, struct outbox_error *error)
{
    amqp_channel_open_t open = {.out_of_band = amqp_empty_bytes};
    amqp_exchange_declare_t declare = {
        .exchange = amqp_cstring_bytes(exchange->name),
        .type = amqp_cstring_bytes(session->settings->exchange_type),
        .passive = !session->settings->declare_ensures,
        .durable = 1,
    };
    int status = AMQP_STATUS_OK;
    if (!session->declare_channel_open) {
        status = amqp_send_method(session->connection, CHANNEL_DECLARE, AMQP_CHANNEL_OPEN_METHOD, &open);
        session->declare_channel_open = true;
    }
    if (status == AMQP_STATUS_OK) {
        status =
            amqp_send_method(session->connection, CHANNEL_DECLARE, AMQP_EXCHANGE_DECLARE_METHOD, &declare);
    }
    return status == AMQP_STATUS_OK
               ? 0
               : session_error(error, OUTBOX_ERROR_UNAVAILABLE, "cannot declare exchange '%s': %s",
                               exchange->name, amqp_error_string2(status));
}

/* Waits for the answer to the declaration under way: answers carry no name, so there is one at a time. */
static enum frames_result await_answer(struct session *session, int64_t deadline_ms,
                                       struct outbox_error *error)
{
    enum frames_result result = FRAMES_SOME;
    while (session->exchanges.asked && result == FRAMES_SOME) {
        result = frames_pump(session, deadline_ms, error);
    }
    return result;
}

enum exchange_state declare_exchange(struct session *session, const char *name, int64_t deadline_ms,
                                     const char **reason, struct outbox_error *error)
{
    if (name[0] == '\0') {
        return EXCHANGE_EXISTS;
    }
    enum frames_result result = await_answer(session, deadline_ms, error);
    if (result != FRAMES_SOME) {
        return result == FRAMES_LOST ? EXCHANGE_UNKNOWN : EXCHANGE_ASKED;
    }
    struct exchange *exchange = exchange_add(&session->exchanges, name);
    if (!exchange) {
        (void)session_error(error, OUTBOX_ERROR_UNAVAILABLE, "out of memory");
        return EXCHANGE_UNKNOWN;
    }
    if (exchange->state == EXCHANGE_UNKNOWN) {
        if (send_declare(session, exchange, error) != 0) {
            return EXCHANGE_UNKNOWN;
        }
        exchange->state = EXCHANGE_ASKED;
        session->exchanges.asked = exchange;
        if (await_answer(session, deadline_ms, error) == FRAMES_LOST) {
            return EXCHANGE_UNKNOWN;
        }
    }
    *reason = exchange->reason;
    return exchange->state;
}
