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

static bool is_one_of(struct outbox_bytes name, const char *const *names)
{
    for (; *names; names++) {
        if (name.len == strlen(*names) && begins(name, *names)) {
            return true;
        }
    }
    return false;
}

bool field_is_ours(struct outbox_bytes name)
{
    static const char *const names[] = {
        "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
        "trailer",        "expect",       "http2-settings",    NULL};
    return is_one_of(name, names) || begins(name, "webhook-") || begins(name, "outbox-") ||
           begins(name, "ce-");
}

bool field_is_reserved(struct outbox_bytes name)
{
    static const char *const names[] = {"host",
                                        "content-encoding",
                                        "authorization",
                                        "cookie",
                                        "proxy-connection",
                                        "proxy-authorization",
                                        "proxy-authenticate",
                                        "user-agent",
                                        "forwarded",
                                        NULL};
    return field_is_ours(name) || is_one_of(name, names) || begins(name, "x-forwarded-");
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
