/*
 * lanes - in which order the messages of a batch may be on their way at once; pure.
 *
 * Two messages of one (channel, key) are never in flight together: the second becomes ready when the first is
 * done. Messages without a key wait for nobody.
 * What a refusal of the first means for the second is the core's to say.
 */
#ifndef HTTP_LANES_H
#define HTTP_LANES_H

#include <stdbool.h>
#include <stddef.h>

#include "outbox_backend.h"

struct lanes {
    size_t count;
    size_t *next;    /* the message behind it in its lane; LANES_NONE */
    size_t *channel; /* a number for its channel, from 0 */
    size_t channel_count;
    size_t *ready; /* a ring of those that may be sent, oldest first */
    size_t ready_from;
    size_t ready_count;
};

#define LANES_NONE ((size_t)-1)

/* -1 when memory is short. lanes_finish() either way. */
int lanes_init(struct lanes *lanes, const struct outbox_batch *batch);
void lanes_finish(struct lanes *lanes); /* accepts a zeroed one */

/* Takes the next message that may be sent; LANES_NONE if all wait for others, or are taken. */
size_t lanes_take(struct lanes *lanes);

/* The message is done with, however it ended. */
void lanes_done(struct lanes *lanes, size_t index);

#endif
