/*
 * confirm - the bookkeeping of publisher confirms; pure, no I/O.
 *
 * Source: RabbitMQ "Consumer Acknowledgements and Publisher Confirms". Delivery tags count from 1 on each
 * channel; the broker acks or nacks each once, in any order, singly or all up to a tag; a basic.return
 * precedes the ack of what could not be routed and carries no tag, so it is matched by the row's seq and id:
 * two rows may bear one seq (a sequence that began anew), but then they differ in their ids.
 */
#ifndef AMQP_CONFIRM_H
#define AMQP_CONFIRM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum confirm_result { CONFIRM_ACKED, CONFIRM_NACKED, CONFIRM_RETURNED };

struct confirm_entry {
    int64_t seq;
    uint64_t id;  /* a hash of the message's id */
    size_t index; /* in the batch */
    bool settled;
    bool returned;
    char *reply; /* of the return; ours */
};

/* The messages in flight of one batch on one channel. */
struct confirms {
    struct confirm_entry *entries;
    size_t capacity;
    size_t count;       /* published in this batch */
    size_t outstanding; /* of them without an answer */
    size_t lowest;      /* first that may be outstanding */
    uint64_t first_tag; /* tag of entries[0] */
    bool stale;         /* an earlier batch was abandoned: the broker may still answer about it */
};

typedef void confirm_settled(void *context, size_t index, enum confirm_result result, const char *reply);

/* A new channel: tags start at 1. */
void confirms_reset(struct confirms *confirms);
void confirms_finish(struct confirms *confirms); /* accepts a zeroed one */

/* A new batch of at most `count`; late answers about earlier ones are ignored. -1 when memory is short. */
int confirms_begin(struct confirms *confirms, size_t count);

/* The batch is over: what is still outstanding is abandoned, its late answers settle nothing. */
void confirms_end(struct confirms *confirms);

/* The message was handed to the connection. */
void confirms_published(struct confirms *confirms, size_t index, int64_t seq, uint64_t id);

/* basic.return of what has that seq and id (0 = not known: then of all that have the seq); false if nothing
 * in flight has. */
bool confirms_returned(struct confirms *confirms, int64_t seq, uint64_t id, const char *reply);

/* basic.ack and basic.nack; false if the tag was never handed out: the other side has lost its mind. */
bool confirms_answer(struct confirms *confirms, uint64_t tag, bool multiple, bool ack,
                     confirm_settled *settled, void *context);

/* The index of the only message in flight; false if there is none, or several, or older ones may still be on
 * their way. */
bool confirms_only_one(const struct confirms *confirms, size_t *index);

#endif
