#include "field.h"

#include <string.h>
#include <strings.h>

bool field_name_is_valid(struct outbox_bytes name)
{
    static const char token[] =
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (size_t at = 0; at < name.len; at++) {
        if (name.ptr[at] == '\0' || !strchr(token, name.ptr[at])) {
            return false;
        }
    }
    return name.len > 0 && name.len <= 255;
}

bool field_value_is_valid(struct outbox_bytes value)
{
    for (size_t at = 0; at < value.len; at++) {
        unsigned char byte = (unsigned char)value.ptr[at];
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool begins(struct outbox_bytes name, const char *prefix)
{
    size_t len = strlen(prefix);
    return name.len >= len && strncasecmp(name.ptr, prefix, len) == 0;
}

bool field_is_reserved(struct outbox_bytes name)
{
    static const char *const names[] = {
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "authorization",
        "cookie",
        "proxy-connection",
        "proxy-authorization",
        "user-agent",
        "http2-settings",
        "forwarded",
        "proxy-authenticate",
    };
    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++) {
        if (name.len == strlen(names[at]) && begins(name, names[at])) {
            return true;
        }
    }
    return begins(name, "webhook-") || begins(name, "outbox-") || begins(name, "ce-") ||
           begins(name, "x-forwarded-");
}

int field_encode(struct outbox_bytes value, char *out, size_t out_bytes)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t used = 0;
    for (size_t at = 0; at < value.len; at++) {
        unsigned char byte = (unsigned char)value.ptr[at];
        bool plain = byte > 0x20 && byte < 0x7f && byte != '"' && byte != '%';
        if (used + 4 > out_bytes) {
            return -1;
        }
        if (plain) {
            out[used++] = (char)byte;
        } else {
            out[used++] = '%';
            out[used++] = digits[byte >> 4];
            out[used++] = digits[byte & 15];
        }
    }
    if (used >= out_bytes) {
        return -1;
    }
    out[used] = '\0';
    return (int)used;
}
