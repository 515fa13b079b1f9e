#include "confirm.h"

#include <stdlib.h>
#include <string.h>

static void forget_replies(struct confirms *confirms)
{
    for (size_t at = 0; at < confirms->count; at++) {
        free(confirms->entries[at].reply);
    }
}

void confirms_reset(struct confirms *confirms)
{
    forget_replies(confirms);
    confirms->count = 0;
    confirms->outstanding = 0;
    confirms->lowest = 0;
    confirms->first_tag = 1;
    confirms->stale = false;
}

void confirms_finish(struct confirms *confirms)
{
    forget_replies(confirms);
    free(confirms->entries);
    *confirms = (struct confirms){0};
}

void confirms_end(struct confirms *confirms)
{
    forget_replies(confirms);
    confirms->stale = confirms->stale || confirms->outstanding > 0;
    confirms->first_tag += confirms->count;
    confirms->count = 0;
    confirms->outstanding = 0;
    confirms->lowest = 0;
}

int confirms_begin(struct confirms *confirms, size_t count)
{
    confirms_end(confirms);
    if (count > confirms->capacity) {
        struct confirm_entry *grown = realloc(confirms->entries, count * sizeof *grown);
        if (!grown) {
            return -1;
        }
        confirms->entries = grown;
        confirms->capacity = count;
    }
    return 0;
}

void confirms_published(struct confirms *confirms, size_t index, int64_t seq, uint64_t id)
{
    confirms->entries[confirms->count++] = (struct confirm_entry){.seq = seq, .id = id, .index = index};
    confirms->outstanding++;
}

bool confirms_returned(struct confirms *confirms, int64_t seq, uint64_t id, const char *reply)
{
    bool found = false;
    for (size_t at = confirms->lowest; at < confirms->count; at++) {
        struct confirm_entry *entry = &confirms->entries[at];
        bool same = entry->seq == seq && (id == 0 || entry->id == id);
        found = found || (same && !entry->settled);
        if (same && !entry->settled && !entry->returned) {
            entry->returned = true; /* every one: whichever came back, none may be deleted for it */
            entry->reply = strdup(reply);
        }
    }
    return found;
}

static void settle(struct confirms *confirms, struct confirm_entry *entry, bool ack, confirm_settled *settled,
                   void *context)
{
    if (entry->settled) {
        return; /* answered before: the first answer counts */
    }
    entry->settled = true;
    confirms->outstanding--;
    enum confirm_result result = ack ? CONFIRM_ACKED : CONFIRM_NACKED;
    if (ack && entry->returned) {
        result = CONFIRM_RETURNED;
    }
    settled(context, entry->index, result, entry->reply ? entry->reply : "unroutable");
}

bool confirms_answer(struct confirms *confirms, uint64_t tag, bool multiple, bool ack,
                     confirm_settled *settled, void *context)
{
    uint64_t next_tag = confirms->first_tag + confirms->count;
    if (tag >= next_tag || (tag == 0 && !multiple)) {
        return false;
    }
    if (tag == 0) {
        tag = next_tag - 1; /* AMQP 0-9-1, basic.ack: zero with multiple means all */
    }
    if (tag < confirms->first_tag) {
        return true; /* late news of an earlier batch */
    }
    size_t last = (size_t)(tag - confirms->first_tag);
    for (size_t at = multiple ? confirms->lowest : last; at <= last; at++) {
        settle(confirms, &confirms->entries[at], ack, settled, context);
    }
    while (confirms->lowest < confirms->count && confirms->entries[confirms->lowest].settled) {
        confirms->lowest++;
    }
    return true;
}

bool confirms_only_one(const struct confirms *confirms, size_t *index)
{
    if (confirms->outstanding != 1 || confirms->stale) {
        return false;
    }
    *index = confirms->entries[confirms->lowest].index;
    return true;
}
