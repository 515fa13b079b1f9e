/*
 * fuzz_fields - names and values of a message's headers, as HTTP fields: what is accepted is one line of one
 * field that is nobody else's.
 *
 * The bytes are lines: a name, and behind the first ':' its value; lines end at NUL bytes.
 */
#include <ctype.h>
#include <string.h>

#include "field.h"
#include "fuzz.h"

enum { OUT_BYTES = 1024 };

/* The names that no message may set, in the words of a receiver that knows no difference between '-' and '_'.
 */
static bool is_ours(const char *folded)
{
    static const char *const names[] = {"authorization",
                                        "content-length",
                                        "content-type",
                                        "transfer-encoding",
                                        "host",
                                        "connection",
                                        "webhook-id",
                                        "webhook-signature",
                                        "webhook-timestamp",
                                        "outbox-key",
                                        "outbox-channel",
                                        "proxy",
                                        "te",
                                        "upgrade",
                                        "range",
                                        "x-http-method-override",
                                        "x-forwarded-for",
                                        "ce-id",
                                        "expect",
                                        "cookie"};
    for (size_t at = 0; at < sizeof names / sizeof names[0]; at++) {
        if (strcmp(folded, names[at]) == 0) {
            return true;
        }
    }
    return false;
}

static void check_name(struct outbox_bytes name)
{
    char folded[OUT_BYTES];
    PROMISE(name.len > 0, "a name is not empty");
    for (size_t at = 0; at < name.len; at++) {
        unsigned char byte = (unsigned char)name.ptr[at];
        PROMISE(byte > 0x20 && byte < 0x7f && !strchr(":;,\"()/<=>?@[\\]{}", byte),
                "a name is a token (RFC 9110, 5.6.2)");
        folded[at < OUT_BYTES ? at : 0] = (char)(byte == '_' ? '-' : tolower(byte));
    }
    if (name.len < OUT_BYTES) {
        folded[name.len] = '\0';
        PROMISE(!is_ours(folded) || field_is_reserved(name), "what is ours is no message's");
    }
}

static void check_value(struct outbox_bytes value)
{
    for (size_t at = 0; at < value.len; at++) {
        unsigned char byte = (unsigned char)value.ptr[at];
        PROMISE((byte >= 0x20 && byte != 0x7f) || byte == '\t', "a value is of one line");
    }
}

static void check_encoded(struct outbox_bytes value)
{
    char out[OUT_BYTES];
    int len = field_encode(value, out, sizeof out);
    PROMISE(len >= 0 || value.len * 3 >= sizeof out, "it is refused only where it does not fit");
    PROMISE(len < 0 || (strlen(out) == (size_t)len && (size_t)len < sizeof out), "it ends");
    for (int at = 0; at < len; at++) {
        PROMISE(out[at] > 0x20 && out[at] < 0x7f && out[at] != '"', "printable ASCII alone");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        const char *line = (const char *)data + at;
        const char *end = memchr(line, '\0', bytes - at);
        size_t len = end ? (size_t)(end - line) : bytes - at;
        const char *colon = memchr(line, ':', len);
        struct outbox_bytes name = {line, colon ? (size_t)(colon - line) : len};
        struct outbox_bytes value = {line + name.len, len - name.len};
        if (field_name_is_valid(name)) {
            check_name(name);
        }
        if (field_value_is_valid(value)) {
            check_value(value);
        }
        PROMISE(!field_is_ours(name) || field_is_reserved(name), "what no operator sets, no message does");
        check_encoded(value);
        at += len + 1;
    }
    return 0;
}
