#include "broker.h"

#include <string.h>

void content_number(struct content *content, uint64_t number, unsigned bytes)
{
    while (bytes-- > 0 && content->len < sizeof content->bytes) {
        content->bytes[content->len++] = (unsigned char)(number >> (8 * bytes));
    }
}

void content_short_text(struct content *content, const char *text, size_t len)
{
    content_number(content, len, 1);
    for (size_t at = 0; at < len; at++) {
        content_number(content, (unsigned char)text[at], 1);
    }
}

static void add(struct wire *wire, const unsigned char *bytes, size_t len)
{
    memcpy(wire->bytes + wire->len, bytes, len);
    wire->len += len;
}

void wire_frame(struct wire *wire, unsigned type, unsigned channel, const struct content *content)
{
    static const unsigned char end = 0xCE;
    struct content head = {.len = 0};
    if (content->len + 8 > sizeof wire->bytes - wire->len) {
        return;
    }
    content_number(&head, type, 1);
    content_number(&head, channel, 2);
    content_number(&head, content->len, 4);
    add(wire, head.bytes, head.len);
    add(wire, content->bytes, content->len);
    add(wire, &end, 1);
}

static void long_text(struct content *content, const char *text)
{
    content_number(content, strlen(text), 4);
    for (; *text; text++) {
        content_number(content, (unsigned char)*text, 1);
    }
}

static struct content method(uint32_t id)
{
    struct content content = {.len = 0};
    content_number(&content, id, 4);
    return content;
}

void wire_handshake(struct wire *wire)
{
    struct content start = method(METHOD(10, 10));
    content_number(&start, 9, 2); /* version 0-9 */
    long_text(&start, "");        /* server-properties */
    long_text(&start, "PLAIN");
    long_text(&start, "en_US");
    struct content tune = method(METHOD(10, 30));
    content_number(&tune, 2047, 2);
    content_number(&tune, 131072, 4);
    content_number(&tune, 60, 2);
    struct content open_ok = method(METHOD(10, 41));
    content_short_text(&open_ok, "", 0);
    struct content channel_ok = method(METHOD(20, 11));
    long_text(&channel_ok, "");
    struct content select_ok = method(METHOD(85, 11));
    wire_frame(wire, FRAME_METHOD, 0, &start);
    wire_frame(wire, FRAME_METHOD, 0, &tune);
    wire_frame(wire, FRAME_METHOD, 0, &open_ok);
    wire_frame(wire, FRAME_METHOD, 1, &channel_ok);
    wire_frame(wire, FRAME_METHOD, 1, &select_ok);
}

void wire_return(struct wire *wire, int64_t seq)
{
    struct content returned = method(METHOD_RETURN);
    content_number(&returned, 312, 2);
    content_short_text(&returned, "NO_ROUTE", 8);
    content_short_text(&returned, "exchange", 8);
    content_short_text(&returned, "key", 3);
    struct content header = {.len = 0};
    content_number(&header, 60, 2);     /* class basic */
    content_number(&header, 0, 2);      /* weight */
    content_number(&header, 0, 8);      /* size of the body */
    content_number(&header, 0x2000, 2); /* headers are all its properties */
    content_number(&header, 1 + 10 + 1 + 8, 4);
    content_short_text(&header, "outbox-seq", 10);
    content_number(&header, 'l', 1);
    content_number(&header, (uint64_t)seq, 8);
    wire_frame(wire, FRAME_METHOD, 1, &returned);
    wire_frame(wire, FRAME_HEADER, 1, &header);
}
