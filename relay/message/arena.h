/* arena - many small allocations with one life, bounded. */
#ifndef RELAY_ARENA_H
#define RELAY_ARENA_H

#include <stddef.h>

#include "base/bytes.h"

struct arena_block;

struct arena {
    struct arena_block *newest;
    size_t used_bytes; /* over all blocks */
    size_t max_bytes;
};

void arena_init(struct arena *arena, size_t max_bytes);
void arena_finish(struct arena *arena); /* accepts a zeroed one */

/* Frees everything but one block, which is used again. */
void arena_reset(struct arena *arena);

/* Zeroed, aligned for any type; NULL when the maximum or memory is exhausted. */
void *arena_alloc(struct arena *arena, size_t bytes);

/* A NUL-terminated copy; NULL as above. */
char *arena_copy(struct arena *arena, struct bytes from);

#endif
