/*
 * kit_tape - what went to the broker over one connection, and which messages of the kit are found in it.
 *
 * Bounded: a tape that is full says so, and is then no proof of absence.
 */
#ifndef RELAY_KIT_TAPE_H
#define RELAY_KIT_TAPE_H

#include <stdbool.h>
#include <stddef.h>

struct kit_tape {
    char *bytes;
    size_t len;
    size_t room;
    bool full; /* or memory was short: something is missing */
};

void kit_tape_add(struct kit_tape *tape, const char *bytes, size_t len);

/* Marks of kit_message `first` to `first + count - 1`: heard[number - first] becomes true. */
void kit_tape_find_marks(const struct kit_tape *tape, unsigned first, size_t count, bool *heard);

void kit_tape_finish(struct kit_tape *tape); /* and it may be used again */

#endif
