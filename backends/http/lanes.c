#include "lanes.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Open addressing: slots hold 1 + the index of the latest message of a lane or channel; 0 = free. */
struct table {
    size_t *slots;
    size_t mask;
};

static uint64_t hash(uint64_t seed, struct outbox_bytes bytes)
{
    for (size_t at = 0; at < bytes.len; at++) {
        seed = (seed ^ (unsigned char)bytes.ptr[at]) * 1099511628211U; /* FNV-1a */
    }
    return (seed ^ 0xff) * 1099511628211U; /* a byte that no UTF-8 text has ends each part */
}

static bool equal(struct outbox_bytes a, struct outbox_bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* The slot of the message's lane (with_key), or of its channel. */
static size_t *find(const struct table *table, const struct outbox_batch *batch, size_t index, bool with_key)
{
    const struct outbox_message *message = batch->messages[index];
    uint64_t at = hash(14695981039346656037U, message->channel);
    at = with_key ? hash(at, message->key) : at;
    for (at ^= at >> 29;; at++) {
        size_t *slot = &table->slots[at & table->mask];
        if (*slot == 0) {
            return slot;
        }
        const struct outbox_message *other = batch->messages[*slot - 1];
        if (equal(other->channel, message->channel) && (!with_key || equal(other->key, message->key))) {
            return slot;
        }
    }
}

static void push(struct lanes *lanes, size_t index)
{
    lanes->ready[(lanes->ready_from + lanes->ready_count++) % lanes->count] = index;
}

static void sort_into_lanes(struct lanes *lanes, const struct outbox_batch *batch, const struct table *keys,
                            const struct table *channels)
{
    for (size_t at = 0; at < batch->count; at++) {
        size_t *slot = find(channels, batch, at, false);
        lanes->channel[at] = *slot == 0 ? lanes->channel_count++ : lanes->channel[*slot - 1];
        *slot = at + 1;
        lanes->next[at] = LANES_NONE;
        slot = batch->messages[at]->key.len > 0 ? find(keys, batch, at, true) : NULL;
        if (slot && *slot != 0) {
            lanes->next[*slot - 1] = at;
        } else {
            push(lanes, at);
        }
        if (slot) {
            *slot = at + 1;
        }
    }
}

int lanes_init(struct lanes *lanes, const struct outbox_batch *batch)
{
    size_t slots = 16;
    while (slots < 2 * batch->count) {
        slots *= 2;
    }
    *lanes = (struct lanes){.count = batch->count};
    struct table keys = {calloc(slots, sizeof(size_t)), slots - 1};
    struct table channels = {calloc(slots, sizeof(size_t)), slots - 1};
    lanes->next = calloc(batch->count + 1, sizeof(size_t));
    lanes->channel = calloc(batch->count + 1, sizeof(size_t));
    lanes->ready = calloc(batch->count + 1, sizeof(size_t));
    bool enough = keys.slots && channels.slots && lanes->next && lanes->channel && lanes->ready;
    if (enough) {
        sort_into_lanes(lanes, batch, &keys, &channels);
    }
    free(keys.slots);
    free(channels.slots);
    return enough ? 0 : -1;
}

void lanes_finish(struct lanes *lanes)
{
    free(lanes->next);
    free(lanes->channel);
    free(lanes->ready);
    *lanes = (struct lanes){0};
}

size_t lanes_take(struct lanes *lanes)
{
    if (lanes->ready_count == 0) {
        return LANES_NONE;
    }
    size_t index = lanes->ready[lanes->ready_from];
    lanes->ready_from = (lanes->ready_from + 1) % lanes->count;
    lanes->ready_count--;
    return index;
}

void lanes_done(struct lanes *lanes, size_t index)
{
    if (lanes->next[index] != LANES_NONE) {
        push(lanes, lanes->next[index]);
        lanes->next[index] = LANES_NONE;
    }
}
