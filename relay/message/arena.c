#include "message/arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 16384 };

struct arena_block {
    struct arena_block *older;
    size_t size;
    size_t used;
    alignas(max_align_t) char data[];
};

void arena_init(struct arena *arena, size_t max_bytes)
{
    *arena = (struct arena){.max_bytes = max_bytes};
}

static void free_older_than(struct arena_block *block)
{
    while (block->older) {
        struct arena_block *older = block->older;
        block->older = older->older;
        free(older);
    }
}

void arena_finish(struct arena *arena)
{
    if (arena->newest) {
        free_older_than(arena->newest);
        free(arena->newest);
    }
    *arena = (struct arena){0};
}

void arena_reset(struct arena *arena)
{
    if (arena->newest) {
        free_older_than(arena->newest);
        arena->newest->used = 0;
    }
    arena->used_bytes = 0;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    const size_t alignment = alignof(max_align_t);
    size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded < bytes || rounded > arena->max_bytes || arena->used_bytes > arena->max_bytes - rounded) {
        return NULL;
    }
    struct arena_block *block = arena->newest;
    if (!block || block->size - block->used < rounded) {
        size_t size = rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES;
        block = malloc(sizeof *block + size);
        if (!block) {
            return NULL;
        }
        *block = (struct arena_block){.older = arena->newest, .size = size};
        arena->newest = block;
    }
    void *result = block->data + block->used;
    block->used += rounded;
    arena->used_bytes += rounded;
    return memset(result, 0, rounded);
}

char *arena_copy(struct arena *arena, struct bytes from)
{
    char *copy = arena_alloc(arena, from.len + 1);
    if (copy && from.len > 0) {
        memcpy(copy, from.ptr, from.len);
    }
    return copy;
}
