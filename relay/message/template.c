#include "message/template.h"

#include <stdbool.h>
#include <string.h>

const char *kind_name(enum outbox_kind kind)
{
    static const char *const names[] = {"event", "command", "reply"};
    return names[kind];
}

static bool lookup(const char *name, size_t len, const struct outbox_message *message,
                   struct outbox_bytes *out)
{
    const char *kind = kind_name(message->kind);
    const struct {
        const char *name;
        struct outbox_bytes value;
    } variables[] = {
        {"channel", message->channel},  {"type", message->type}, {"key", message->key},
        {"kind", {kind, strlen(kind)}}, {"id", message->id},     {"reply_to", message->reply_to},
    };
    for (size_t at = 0; at < sizeof variables / sizeof variables[0]; at++) {
        if (strlen(variables[at].name) == len && memcmp(variables[at].name, name, len) == 0) {
            *out = variables[at].value;
            return true;
        }
    }
    return false;
}

int template_render(const char *pattern, const struct outbox_message *message, char *out, size_t out_bytes)
{
    size_t used = 0;
    while (*pattern) {
        struct outbox_bytes piece = {pattern, 1};
        size_t step = 1;
        if (pattern[0] == '$' && pattern[1] == '{') {
            size_t name_len = strcspn(pattern + 2, "}");
            if (pattern[2 + name_len] != '}' || !lookup(pattern + 2, name_len, message, &piece)) {
                return -1;
            }
            step = name_len + 3;
        }
        if (used + piece.len >= out_bytes || (piece.len > 0 && memchr(piece.ptr, '\0', piece.len))) {
            return -1;
        }
        if (piece.len > 0) {
            memcpy(out + used, piece.ptr, piece.len);
        }
        used += piece.len;
        pattern += step;
    }
    out[used] = '\0';
    return (int)used;
}
