/* session - what one worker's connection to RabbitMQ consists of. */
#ifndef AMQP_SESSION_H
#define AMQP_SESSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "broker.h"
#include "confirm.h"
#include "exchange.h"
#include "library.h"
#include "outbox_backend.h"
#include "settings.h"

enum { CHANNEL_PUBLISH = 1, CHANNEL_DECLARE = 2 };

/* A basic.return arrives as a method, a header and body frames. */
struct returning {
    bool active;
    bool has_header;
    uint64_t body_left;
    bool known; /* which row it is: it bore its headers */
    int64_t seq;
    uint64_t id; /* session_id_hash() */
    char reply[400];
};

struct session {
    const struct settings *settings;
    amqp_connection_state_t connection; /* NULL = not connected */
    size_t url;                         /* index of the one that last took a login */
    bool logged_in;                     /* it did */
    bool answered;                      /* and has answered for a message since */
    int frame_max;
    struct broker broker; /* what it said when we logged in */
    struct confirms confirms;
    struct exchanges exchanges;
    struct returning returning;
    struct outbox_batch *batch; /* during publish() */
    int64_t began_ms;           /* when publish() was called */
    int64_t refused_at_ms;      /* the first nack on this channel; 0 = none */
    amqp_table_entry_t *entries;
    size_t entry_capacity;
    bool declare_channel_open;
    bool blocked;
    int64_t blocked_at_ms;
    char blocked_reason[256];

    pthread_mutex_t interrupt_lock;
    int interrupt_fd; /* a dup of the socket, so that shutdown() never hits a stranger's descriptor; -1 = none
                       */
    bool interrupted;
};

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t session_now_ms(void);

/* What is left until the deadline, at least 0. */
struct timeval session_left(int64_t deadline_ms);

/* What is left of the message's life, counted down since publish() was called; -1 = it never expires. */
int64_t session_ttl_ms(const struct session *session, const struct outbox_message *message);

/* Has connection_interrupt() been called since connection_open() began? */
bool session_is_interrupted(struct session *session);

/* Fills error->text; always returns -1. */
int session_error(struct outbox_error *error, enum outbox_error_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
