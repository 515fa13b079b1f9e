#include "exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"
#include "session.h"

static struct exchange **bucket_of(struct exchanges *exchanges, const char *name)
{
    unsigned hash = 5381; /* Bernstein */
    for (; *name; name++) {
        hash = hash * 33 + (unsigned char)*name;
    }
    return &exchanges->buckets[hash % EXCHANGE_BUCKETS];
}

void exchanges_clear(struct exchanges *exchanges)
{
    for (unsigned at = 0; at < EXCHANGE_BUCKETS; at++) {
        while (exchanges->buckets[at]) {
            struct exchange *exchange = exchanges->buckets[at];
            exchanges->buckets[at] = exchange->next;
            free(exchange);
        }
    }
    *exchanges = (struct exchanges){0};
}

void exchanges_forget_failures(struct exchanges *exchanges)
{
    for (unsigned at = 0; at < EXCHANGE_BUCKETS; at++) {
        for (struct exchange *exchange = exchanges->buckets[at]; exchange; exchange = exchange->next) {
            if (exchange->state == EXCHANGE_FAILED) {
                exchange->state = EXCHANGE_UNKNOWN;
            }
        }
    }
}

static struct exchange *find_or_add(struct exchanges *exchanges, const char *name)
{
    struct exchange **bucket = bucket_of(exchanges, name);
    for (struct exchange *exchange = *bucket; exchange; exchange = exchange->next) {
        if (strcmp(exchange->name, name) == 0) {
            return exchange;
        }
    }
    if (exchanges->count == EXCHANGES_MAX) {
        exchanges_clear(exchanges); /* rows may name any number of them: start anew rather than grow */
    }
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (exchange) {
        (void)snprintf(exchange->name, sizeof exchange->name, "%s", name);
        exchange->next = *bucket;
        *bucket = exchange;
        exchanges->count++;
    }
    return exchange;
}

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

enum exchange_state exchange_find(struct session *session, const char *name, int64_t deadline_ms,
                                  const char **reason, struct outbox_error *error)
{
    if (name[0] == '\0') {
        return EXCHANGE_EXISTS;
    }
    enum frames_result result = await_answer(session, deadline_ms, error);
    if (result != FRAMES_SOME) {
        return result == FRAMES_LOST ? EXCHANGE_UNKNOWN : EXCHANGE_ASKED;
    }
    struct exchange *exchange = find_or_add(&session->exchanges, name);
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

void exchange_declared(struct session *session)
{
    if (session->exchanges.asked) {
        session->exchanges.asked->state = EXCHANGE_EXISTS;
        session->exchanges.asked = NULL;
    }
}

void exchange_refused(struct session *session, int code, const char *text)
{
    struct exchange *exchange = session->exchanges.asked;
    if (exchange) {
        const char *fix = code != AMQP_NOT_FOUND               ? ""
                          : session->settings->declare_ensures ? ""
                                                               : ": create it, or set amqp.declare: ensure";
        (void)snprintf(exchange->reason, sizeof exchange->reason, "exchange '%.120s': %d %.160s%s",
                       exchange->name, code, text, fix);
        exchange->state = EXCHANGE_FAILED;
        session->exchanges.asked = NULL;
    }
    session->declare_channel_open = false; /* the broker has closed it */
}
