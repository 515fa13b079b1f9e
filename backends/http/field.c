#include "field.h"

#include <string.h>

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

/* CGI and WSGI (RFC 3875, section 4.1.18; PEP 3333) hand over a name in capitals with '_' for '-': to whoever
 * stands behind them outbox_key and Outbox-Key are one. */
static char fold(char letter)
{
    return letter == '_' ? '-' : letter >= 'A' && letter <= 'Z' ? (char)(letter - 'A' + 'a') : letter;
}

static bool begins(struct outbox_bytes name, const char *prefix)
{
    size_t len = strlen(prefix);
    size_t same = 0;
    while (same < len && same < name.len && fold(name.ptr[same]) == fold(prefix[same])) {
        same++;
    }
    return same == len;
}

bool field_is_named(struct outbox_bytes name, const char *other)
{
    return name.len == strlen(other) && begins(name, other);
}

static bool is_one_of(struct outbox_bytes name, const char *const *names)
{
    while (*names && !field_is_named(name, *names)) {
        names++;
    }
    return *names != NULL;
}

static bool begins_one_of(struct outbox_bytes name, const char *const *prefixes)
{
    while (*prefixes && !begins(name, *prefixes)) {
        prefixes++;
    }
    return *prefixes != NULL;
}

bool field_is_ours(struct outbox_bytes name)
{
    static const char *const names[] = {
        "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te",
        "trailer",        "expect",       "http2-settings",    NULL};
    static const char *const prefixes[] = {"webhook-", "outbox-", "ce-", NULL};
    return is_one_of(name, names) || begins_one_of(name, prefixes);
}

bool field_is_reserved(struct outbox_bytes name)
{
    /* Who the sender is, by what he says, or by what a proxy in front of the receiver would have said. */
    static const char *const identities[] = {"authorization",
                                             "cookie",
                                             "set-cookie",
                                             "user-agent",
                                             "forwarded",
                                             "via",
                                             "origin",
                                             "referer",
                                             "x-real-ip",
                                             "client-ip",
                                             "true-client-ip",
                                             "x-cluster-client-ip",
                                             "remote-user",
                                             "fastly-client-ip",
                                             "x-host",
                                             "x-scheme",
                                             NULL};
    /* What another request would be: another host, method, path, encoding, part or condition. */
    static const char *const others[] = {"host",
                                         "content-encoding",
                                         "content-location",
                                         "content-range",
                                         "range",
                                         "max-forwards",
                                         "x-http-method-override",
                                         "x-http-method",
                                         "x-method-override",
                                         "x-original-url",
                                         "x-rewrite-url",
                                         "accept-encoding",
                                         "proxy",
                                         NULL};
    static const char *const prefixes[] = {"x-forwarded",
                                           "x-original-",
                                           "proxy-",
                                           "if-",
                                           "sec-",
                                           "x-accel-",
                                           "x-sendfile",
                                           "access-control-",
                                           "x-ssl-",
                                           "ssl-client",
                                           "x-client-",
                                           "x-remote-",
                                           "impersonate-",
                                           "x-auth-",
                                           "x-ms-",
                                           "x-goog-",
                                           "x-amzn-",
                                           "cf-",
                                           "x-envoy-",
                                           "wl-proxy-",
                                           "tailscale-",
                                           "x-webauth-",
                                           "x-authentik-",
                                           "x-vouch-",
                                           NULL};
    return field_is_ours(name) || is_one_of(name, identities) || is_one_of(name, others) ||
           begins_one_of(name, prefixes);
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
