/*
 * frames - the one loop that reads what the broker says: confirms, returns, answers to declarations, alarms,
 * closes.
 *
 * librabbitmq 0.11 has no such loop that survives more than one kind of frame, see research/reliability.md
 * section 3.
 */
#ifndef AMQP_FRAMES_H
#define AMQP_FRAMES_H

#include <stdint.h>

#include "session.h"

enum frames_result {
    FRAMES_LOST = -1, /* *error says why; the connection is good for closing only */
    FRAMES_NONE = 0,  /* nothing came until the deadline */
    FRAMES_SOME = 1   /* at least one frame was handled */
};

/* Handles one frame, waiting for it until the deadline; a deadline in the past only looks. Services
 * heartbeats. */
enum frames_result frames_pump(struct session *session, int64_t deadline_ms, struct outbox_error *error);

/* Handles all that has already arrived. FRAMES_LOST or FRAMES_NONE. */
enum frames_result frames_drain(struct session *session, struct outbox_error *error);

#endif
