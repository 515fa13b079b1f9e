/* publish - a batch as requests, many in flight. */
#ifndef HTTP_PUBLISH_H
#define HTTP_PUBLISH_H

#include "session.h"

enum outbox_session_state publish_batch(struct session *session, struct outbox_batch *batch,
                                        int64_t deadline_ms, struct outbox_error *error);

#endif
