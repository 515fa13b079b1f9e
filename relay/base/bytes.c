#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

uint64_t bytes_hash(struct bytes view)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t at = 0; at < view.len; at++) {
        hash = (hash ^ (unsigned char)view.ptr[at]) * 0x100000001b3u;
    }
    return hash;
}

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

void text_init(struct text *text, size_t max_bytes)
{
    *text = (struct text){.max_bytes = max_bytes};
}

void text_finish(struct text *text)
{
    free(text->ptr);
    *text = (struct text){0};
}

void text_clear(struct text *text)
{
    text->len = 0;
    text->overflow = false;
    if (text->ptr) {
        text->ptr[0] = '\0';
    }
}

static bool make_room(struct text *text, size_t more)
{
    if (text->overflow || more > text->max_bytes || text->len > text->max_bytes - more) {
        text->overflow = true;
        return false;
    }
    size_t need = text->len + more + 1;
    if (need <= text->capacity) {
        return true;
    }
    size_t capacity = text->capacity ? text->capacity * 2 : 256;
    capacity = capacity < need ? need : capacity;
    char *grown = realloc(text->ptr, capacity);
    if (!grown) {
        text->overflow = true;
        return false;
    }
    text->ptr = grown;
    text->capacity = capacity;
    return true;
}

void text_add_bytes(struct text *text, struct bytes more)
{
    if (make_room(text, more.len)) {
        if (more.len > 0) {
            memcpy(text->ptr + text->len, more.ptr, more.len);
        }
        text->len += more.len;
        text->ptr[text->len] = '\0';
    }
}

void text_add(struct text *text, const char *more)
{
    text_add_bytes(text, bytes_of(more));
}

void text_add_number(struct text *text, int64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do {
        digits[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (number < 0) {
        digits[--at] = '-';
    }
    text_add_bytes(text, (struct bytes){digits + at, sizeof digits - at});
}

void text_addf(struct text *text, const char *format, ...)
{
    va_list args;
    va_list again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length >= 0 && make_room(text, (size_t)length)) {
        (void)vsnprintf(text->ptr + text->len, (size_t)length + 1, format, again);
        text->len += (size_t)length;
    }
    va_end(again);
}

void text_add_json(struct text *text, struct bytes value)
{
    text_add(text, "\"");
    size_t plain = 0;
    for (size_t at = 0; at < value.len;) {
        size_t length = utf8_length(value, at);
        unsigned char byte = (unsigned char)value.ptr[at];
        if (length > 0 && byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7F) {
            at += length;
            continue;
        }
        text_add_bytes(text, (struct bytes){value.ptr + plain, at - plain});
        if (length == 0) {
            text_add(text, "\xEF\xBF\xBD");
        } else if (byte == '"' || byte == '\\') {
            text_addf(text, "\\%c", byte);
        } else if (byte == '\n') {
            text_add(text, "\\n");
        } else {
            text_addf(text, "\\u%04x", byte);
        }
        plain = ++at;
    }
    text_add_bytes(text, (struct bytes){value.ptr + plain, value.len - plain});
    text_add(text, "\"");
}

void text_add_quoted(struct text *text, struct bytes value)
{
    text_add(text, "\"");
    for (size_t at = 0; at < value.len; at++) {
        if (value.ptr[at] == '"' || value.ptr[at] == '\\') {
            text_add(text, "\\");
        }
        text_add_bytes(text, (struct bytes){&value.ptr[at], 1});
    }
    text_add(text, "\"");
}

const char *text_get(const struct text *text)
{
    return text->ptr ? text->ptr : "";
}

void bytes_copy_printable(char *out, size_t out_bytes, struct bytes from)
{
    size_t used = 0;
    for (size_t at = 0; at < from.len;) {
        size_t length = utf8_length(from, at);
        unsigned char byte = (unsigned char)from.ptr[at];
        const char *piece = from.ptr + at;
        if (length == 0) {
            piece = "?";
        } else if (byte < 0x20 || byte == 0x7F) {
            piece = " ";
        }
        size_t piece_len = length == 0 ? 1 : length;
        if (used + piece_len >= out_bytes) {
            break;
        }
        memcpy(out + used, piece, piece_len);
        used += piece_len;
        at += piece_len;
    }
    out[used] = '\0';
}

static void add_like_byte(struct text *text, char byte)
{
    bool special = byte == '%' || byte == '_' || byte == '\\';
    text_add_bytes(text, (struct bytes){"\\", special});
    text_add_bytes(text, (struct bytes){&byte, 1});
}

void text_add_like(struct text *text, const char *pattern)
{
    for (; *pattern; pattern++) {
        if (*pattern == '*' || *pattern == '?') {
            text_add(text, *pattern == '*' ? "%" : "_");
        } else {
            add_like_byte(text, *pattern);
        }
    }
}

void text_add_like_name(struct text *text, struct bytes name)
{
    for (size_t at = 0; at < name.len; at++) {
        add_like_byte(text, name.ptr[at]);
    }
}
