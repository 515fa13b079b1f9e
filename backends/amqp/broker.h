/* broker - what a broker says of itself when it greets, and what follows from that. */
#ifndef AMQP_BROKER_H
#define AMQP_BROKER_H

#include <stdint.h>

#include "library.h"

struct broker {
    char name[64];             /* "RabbitMQ 4.0.5"; "" = it did not say */
    int64_t max_message_bytes; /* that it takes of one payload, unless its operator has changed that */
};

/* From connection.start's server-properties (AMQP 0-9-1, 1.4.2.1). properties may be NULL. */
void broker_read(struct broker *broker, const amqp_table_t *properties);

#endif
