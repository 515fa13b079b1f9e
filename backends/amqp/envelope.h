/* envelope - a message as AMQP wants it: exchange, routing key, properties; checked before anything reaches
 * the wire. */
#ifndef AMQP_ENVELOPE_H
#define AMQP_ENVELOPE_H

#include "session.h"

struct envelope {
    char exchange[256];
    char routing_key[256];
    char expiration[24];
    amqp_basic_properties_t properties; /* borrows from the message and from the session's entries */
};

/* Fills exchange and routing_key; false, with *reason (256 bytes), if one of them cannot be. */
bool envelope_address(const struct settings *settings, const struct outbox_message *message,
                      struct envelope *envelope, char reason[256]);

/* OUTBOX_UNSETTLED when the message is sealed. Else its verdict, with *reason (256 bytes) filled: REJECTED
 * when AMQP cannot carry it, HOLD when memory is short. */
enum outbox_verdict envelope_seal(struct session *session, const struct outbox_message *message,
                                  struct envelope *envelope, char reason[256]);

/* By which a message that comes back is known again; never 0. */
uint64_t envelope_id_hash(const void *id, size_t id_len);

#endif
