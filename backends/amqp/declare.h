/*
 * declare - asks the broker for an exchange before its first use, on a channel of its own, so that a missing
 * one never closes the publishing channel.
 */
#ifndef AMQP_DECLARE_H
#define AMQP_DECLARE_H

#include "session.h"

/*
 * EXCHANGE_EXISTS, or EXCHANGE_FAILED with *reason, asking the broker if need be; EXCHANGE_ASKED when it did
 * not answer until the deadline; EXCHANGE_UNKNOWN when the session is lost, with *error filled. The default
 * exchange always exists.
 */
enum exchange_state declare_exchange(struct session *session, const char *name, int64_t deadline_ms,
                                     const char **reason, struct outbox_error *error);

#endif
