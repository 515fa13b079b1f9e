/* publish - sends a batch with a window of unconfirmed messages and collects the broker's verdicts. */
#ifndef AMQP_PUBLISH_H
#define AMQP_PUBLISH_H

#include "session.h"

enum outbox_session_state publish_batch(struct session *session, struct outbox_batch *batch,
                                        int64_t deadline_ms, struct outbox_error *error);

#endif
