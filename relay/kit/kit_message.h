/*
 * kit_message - messages for the conformance kit, in memory that tells who reads or writes where they must
 * not.
 *
 * Everything lies in pages of its own: read-only while it is lent, and unreadable afterwards.
 */
#ifndef RELAY_KIT_MESSAGE_H
#define RELAY_KIT_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "outbox_backend.h"

/*
 * A payload of the kit's own holds KIT_MARK and a number of so many hexadecimal digits, by which it is found
 * in what went to the broker. Neither it, nor a value of a header, which holds KIT_MARK, too, has any
 * business in a reason, an error or a log.
 */
#define KIT_MARK   "KITMARK-"
#define KIT_SECRET "KITSECRET-7d1f" /* the same for settings */
enum { KIT_MARK_DIGITS = 8 };

struct kit_messages {
    const struct outbox_message *const *pointers;
    struct outbox_message *list;
    size_t count;
    unsigned first_mark; /* the number in the first one's payload; the others follow */
    char *pages;
    size_t pages_bytes;
    size_t used_bytes;
    bool guarded; /* every text ends where a page that nobody may read begins */
};

/* What the next messages look like; zeroed = plain. */
struct kit_shape {
    struct outbox_bytes
        payload; /* ptr NULL: len 0: one with a mark for each, else so many bytes of any kind */
    struct outbox_bytes key;
    struct outbox_bytes id;              /* of all of them; len 0 = each has its own */
    const struct outbox_header *headers; /* NULL = a header of each type */
    size_t header_count;
    size_t odd_at; /* one message, counted from 1, has a payload of its own; 0 = none */
    struct outbox_bytes odd_payload;
    bool bare; /* only what every message has */
    bool wide; /* guarded: headers stand farther apart than in this header file, as a newer relay's may */
    /* May change each, counted from 0, before it is lent: its texts live as long as the program. NULL = no.
     */
    void (*alter)(struct outbox_message *message, size_t index, size_t round);
    size_t round;
};

/* `count` messages of one shape, with ids of their own; false when memory is short. */
bool kit_messages_make(struct kit_messages *messages, size_t count, const struct kit_shape *shape);

/* The same for one message whose every text ends at the edge of readable memory. */
bool kit_messages_make_guarded(struct kit_messages *messages, const struct kit_shape *shape);

/* From now on reading them is a crash. */
void kit_messages_forbid(struct kit_messages *messages);
void kit_messages_finish(struct kit_messages *messages); /* accepts a zeroed one */

#endif
