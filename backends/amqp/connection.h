/* connection - makes and ends the connection: TCP or TLS, login, the publishing channel in confirm mode. */
#ifndef AMQP_CONNECTION_H
#define AMQP_CONNECTION_H

#include "session.h"

/* Tries the brokers in turn, starting with the one that last worked. */
int connection_open(struct session *session, int64_t deadline_ms, struct outbox_error *error);

/* Opens the publishing channel anew; nothing may be in flight. -1: the session is lost. */
int connection_renew_channel(struct session *session, int64_t deadline_ms, struct outbox_error *error);

/* Accepts a session that is not connected. */
void connection_close(struct session *session);

/* From another thread: any read or write of the session ends at once. */
void connection_interrupt(struct session *session);

#endif
