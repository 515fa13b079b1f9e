/*
 * dial - a TCP connection that is made within a deadline, and given up at once when somebody else says so:
 * librabbitmq's own can only wait.
 */
#ifndef AMQP_DIAL_H
#define AMQP_DIAL_H

#include "session.h"

/* Is the name known? 0, or -1 with *error filled. Before somebody asks who can only wait. */
int dial_knows(struct session *session, const char *host, int port, int64_t deadline_ms,
               struct outbox_error *error);

/* A connected socket, the caller's; -1 with *error filled. Tries the addresses of the name in turn. */
int dial(struct session *session, const char *host, int port, int64_t deadline_ms,
         struct outbox_error *error);

/* Is the peer on this host? */
bool dial_stays_here(int fd);

#endif
