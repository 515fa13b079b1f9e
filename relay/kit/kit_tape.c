#define _GNU_SOURCE /* memmem */
#include "kit/kit_tape.h"

#include <stdlib.h>
#include <string.h>

#include "kit/kit_message.h"

enum { FIRST_ROOM = 64 << 10, MOST_ROOM = 64 << 20 };

static bool make_room(struct kit_tape *tape, size_t len)
{
    size_t room = tape->room ? tape->room : FIRST_ROOM;
    while (room - tape->len < len && room < MOST_ROOM) {
        room *= 2;
    }
    if (room - tape->len < len) {
        return false;
    }
    char *bytes = room == tape->room ? tape->bytes : realloc(tape->bytes, room);
    if (!bytes) {
        return false;
    }
    tape->bytes = bytes;
    tape->room = room;
    return true;
}

void kit_tape_add(struct kit_tape *tape, const char *bytes, size_t len)
{
    if (len == 0 || tape->full) {
        return;
    }
    if (!make_room(tape, len)) {
        tape->full = true;
        return;
    }
    memcpy(tape->bytes + tape->len, bytes, len);
    tape->len += len;
}

/* The hexadecimal digits behind a mark's beginning; false if they are none. */
static bool read_number(const char *text, unsigned *number)
{
    static const char digits[] = "0123456789abcdef";
    *number = 0;
    for (size_t at = 0; at < KIT_MARK_DIGITS; at++) {
        const char *digit = memchr(digits, text[at], sizeof digits - 1);
        if (!digit) {
            return false;
        }
        *number = *number * 16 + (unsigned)(digit - digits);
    }
    return true;
}

void kit_tape_find_marks(const struct kit_tape *tape, unsigned first, size_t count, bool *heard)
{
    static const char begin[] = KIT_MARK;
    const size_t begin_len = sizeof begin - 1;
    const char *at = tape->bytes;
    const char *end = tape->bytes ? tape->bytes + tape->len : NULL;
    while (at && (at = memmem(at, (size_t)(end - at), begin, begin_len)) != NULL) {
        unsigned number = 0;
        at += begin_len;
        if ((size_t)(end - at) >= KIT_MARK_DIGITS && read_number(at, &number) && number >= first &&
            number - first < count) {
            heard[number - first] = true;
        }
    }
}

void kit_tape_finish(struct kit_tape *tape)
{
    free(tape->bytes);
    *tape = (struct kit_tape){0};
}
