#include "base/printable.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Length of the valid UTF-8 character (RFC 3629, table 3-7 of Unicode) at `at`, 0 if there is none. */
static size_t utf8_length(struct bytes view, size_t at)
{
    const unsigned char *byte = (const unsigned char *)view.ptr + at;
    size_t left = view.len - at;
    if (byte[0] < 0x80) {
        return 1;
    }
    size_t length = byte[0] >= 0xF0 ? 4 : byte[0] >= 0xE0 ? 3 : 2;
    if (byte[0] < 0xC2 || byte[0] > 0xF4 || left < length) {
        return 0;
    }
    for (size_t next = 1; next < length; next++) {
        if ((byte[next] & 0xC0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (byte[0] == 0xE0 && byte[1] < 0xA0) || (byte[0] == 0xF0 && byte[1] < 0x90);
    bool surrogate = byte[0] == 0xED && byte[1] > 0x9F;
    bool too_high = byte[0] == 0xF4 && byte[1] > 0x8F;
    return overlong || surrogate || too_high ? 0 : length;
}

static uint32_t code_point(struct bytes view, size_t at, size_t length)
{
    static const unsigned char bits[] = {0, 0x7F, 0x1F, 0x0F, 0x07}; /* of the first byte */
    const unsigned char *byte = (const unsigned char *)view.ptr + at;
    uint32_t code = byte[0] & bits[length];
    for (size_t next = 1; next < length; next++) {
        code = code << 6 | (byte[next] & 0x3F);
    }
    return code;
}

/* C0, DEL and C1 (ECMA-48), line and paragraph separators, what turns the direction (UAX 9, UTS 55), and what
 * has no shape: fillers, blanks, selectors of variants. The joiners U+200C and U+200D stay: words of many
 * languages need them. */
static bool is_hidden(uint32_t code)
{
    static const struct {
        uint32_t first;
        uint32_t last;
    } ranges[] = {{0x7F, 0x9F},     {0xAD, 0xAD},     {0x34F, 0x34F},     {0x61C, 0x61C},    {0x115F, 0x1160},
                  {0x17B4, 0x17B5}, {0x180B, 0x180F}, {0x200B, 0x200B},   {0x200E, 0x200F},  {0x2028, 0x202E},
                  {0x2060, 0x206F}, {0x2800, 0x2800}, {0x3164, 0x3164},   {0xFE00, 0xFE0F},  {0xFEFF, 0xFEFF},
                  {0xFFA0, 0xFFA0}, {0xFFF9, 0xFFFB}, {0xE0000, 0xE007F}, {0xE0100, 0xE01EF}};
    if (code < 0x7F) {
        return code < 0x20;
    }
    for (size_t at = 0; at < sizeof ranges / sizeof ranges[0]; at++) {
        if (code >= ranges[at].first && code <= ranges[at].last) {
            return true;
        }
    }
    return false;
}

/* The length of the character at `at` if it may be shown as it is; else 0. */
static size_t shown_length(struct bytes from, size_t at)
{
    size_t length = utf8_length(from, at);
    return length > 0 && !is_hidden(code_point(from, at, length)) ? length : 0;
}

size_t printable_run(struct bytes from, size_t at)
{
    size_t end = at;
    for (size_t length = 1; end < from.len && length > 0; end += length) {
        length = shown_length(from, end);
    }
    return end - at;
}

size_t printable_escape(struct bytes from, size_t at, char escape[PRINTABLE_ESCAPE_BYTES])
{
    size_t length = utf8_length(from, at);
    uint32_t code = length > 0 ? code_point(from, at, length) : 0;
    if (length == 0) {
        memcpy(escape, "\xEF\xBF\xBD", 4);
        return 1;
    }
    if (code == '\n' || code == '\r' || code == '\t') {
        (void)snprintf(escape, PRINTABLE_ESCAPE_BYTES, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
    } else if (code <= 0xFFFF) {
        (void)snprintf(escape, PRINTABLE_ESCAPE_BYTES, "\\u%04hx", (unsigned short)code);
    } else {
        (void)snprintf(escape, PRINTABLE_ESCAPE_BYTES, "\\u%04hx\\u%04hx",
                       (unsigned short)(0xD800 + ((code - 0x10000) >> 10)),
                       (unsigned short)(0xDC00 + (code & 0x3FF)));
    }
    return length;
}

void printable_copy(char *out, size_t out_bytes, struct bytes from)
{
    size_t used = 0;
    for (size_t at = 0; at < from.len;) {
        char escape[PRINTABLE_ESCAPE_BYTES];
        size_t length = shown_length(from, at);
        struct bytes piece = {from.ptr + at, length};
        if (length == 0) {
            length = printable_escape(from, at, escape);
            piece = bytes_of(escape);
        }
        if (used + piece.len >= out_bytes) {
            break;
        }
        memcpy(out + used, piece.ptr, piece.len);
        used += piece.len;
        at += length;
    }
    out[used] = '\0';
}

void text_add_printable(struct text *text, struct bytes value)
{
    for (size_t at = 0; at < value.len;) {
        char escape[PRINTABLE_ESCAPE_BYTES];
        size_t run = printable_run(value, at);
        text_add_bytes(text, (struct bytes){value.ptr + at, run});
        at += run;
        if (at < value.len) {
            at += printable_escape(value, at, escape);
            text_add(text, escape);
        }
    }
}

void text_add_json(struct text *text, struct bytes value)
{
    text_add(text, "\"");
    for (size_t at = 0; at < value.len;) {
        size_t plain = at; /* up to what must be escaped within quotes */
        while (plain < value.len && value.ptr[plain] != '"' && value.ptr[plain] != '\\') {
            plain++;
        }
        text_add_printable(text, (struct bytes){value.ptr + at, plain - at});
        if (plain < value.len) {
            text_addf(text, "\\%c", value.ptr[plain]);
        }
        at = plain + 1;
    }
    text_add(text, "\"");
}
