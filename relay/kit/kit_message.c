#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "kit/kit_message.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Texts and headers of one message; a page or two and a guard for each text; keys in turn. */
enum { PER_MESSAGE_BYTES = 1024, GUARDED_PAGES = 120, KEYS = 50 };

#define TEXT(literal)                                                                                        \
    {                                                                                                        \
        literal, sizeof(literal) - 1                                                                         \
    }

static const struct outbox_header one_of_each[] = {
    {TEXT("kit-string"), TEXT(KIT_MARK "header"), OUTBOX_VALUE_STRING},
    {TEXT("kit-int"), TEXT("-42"), OUTBOX_VALUE_INT},
    {TEXT("kit-double"), TEXT("2.5"), OUTBOX_VALUE_DOUBLE},
    {TEXT("kit-bool"), TEXT("true"), OUTBOX_VALUE_BOOL},
    {TEXT("kit-null"), {"", 0}, OUTBOX_VALUE_NULL},
};

static size_t round_up(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void *take(struct kit_messages *messages, size_t bytes)
{
    void *taken = messages->pages + messages->used_bytes;
    messages->used_bytes += round_up(bytes, 16);
    return taken;
}

/* A copy of the text; guarded, it ends at a page that nobody may read. */
static struct outbox_bytes place(struct kit_messages *messages, struct outbox_bytes text)
{
    char *copy = NULL;
    if (messages->guarded) {
        size_t page = page_bytes();
        size_t from = round_up(messages->used_bytes, page);
        size_t room = round_up(text.len ? text.len : 1, page);
        copy = messages->pages + from + room - text.len;
        messages->used_bytes = from + room + page;
        (void)mprotect(messages->pages + from + room, page, PROT_NONE);
    } else {
        copy = take(messages, text.len);
    }
    if (text.ptr && text.len > 0) {
        memcpy(copy, text.ptr, text.len);
    } else {
        memset(copy, 'x', text.len);
    }
    return (struct outbox_bytes){copy, text.len};
}

static struct outbox_bytes place_text(struct kit_messages *messages, const char *text)
{
    return place(messages, (struct outbox_bytes){text, strlen(text)});
}

/* each: 1, or 2: what stands between two headers then is none, and points where nobody may read. */
static void place_headers(struct kit_messages *messages, struct outbox_message *message,
                          const struct outbox_header *from, size_t count, size_t each)
{
    struct outbox_header *headers = take(messages, each * count * sizeof *headers);
    for (size_t at = 0; at < each * count; at++) {
        struct outbox_bytes name = place(messages, from[at / each].name);
        struct outbox_bytes value = place(messages, from[at / each].value);
        struct outbox_bytes guard = {name.ptr + name.len, 1};
        headers[at] = at % each == 0 ? (struct outbox_header){name, value, from[at / each].type}
                                     : (struct outbox_header){guard, guard, OUTBOX_VALUE_STRING};
    }
    message->headers = headers;
    message->header_count = count;
    message->header_size = each * sizeof *headers;
}

static struct outbox_bytes payload_of(struct kit_messages *messages, size_t index, unsigned number,
                                      const struct kit_shape *shape)
{
    char text[128];
    if (shape->odd_at == index + 1) {
        return shape->odd_payload;
    }
    if (shape->payload.ptr) {
        return shape->payload;
    }
    (void)snprintf(text, sizeof text,
                   "{\"kit\": \"" KIT_MARK "%0*x\", \"text\": \"gr\xc3\xbc\xc3\x9f Gott\"}", KIT_MARK_DIGITS,
                   number);
    return place_text(messages, text);
}

/* Else it is whatever the test wants it to be, and only calls itself JSON. */
static bool payload_is_ours(size_t index, const struct kit_shape *shape)
{
    return shape->odd_at != index + 1 && !shape->payload.ptr;
}

static void fill(struct kit_messages *messages, struct outbox_message *message, size_t index,
                 const struct kit_shape *shape)
{
    static const uint32_t attempts[] = {1, 2, 9, 1000}; /* which is none of a backend's business */
    char id[64];
    char key[32];
    struct timespec now;
    unsigned number = messages->first_mark + (unsigned)index;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(id, sizeof id, "%08llx-%04llx-4000-8000-%012llx",
                   (unsigned long long)now.tv_sec & 0xffffffff, (unsigned long long)getpid() & 0xffff,
                   (unsigned long long)number);
    (void)snprintf(key, sizeof key, "kit-%d", (int)(index % KEYS));
    *message = (struct outbox_message){.size = sizeof *message,
                                       .kind = OUTBOX_EVENT,
                                       .seq = number,
                                       .id = shape->id.len > 0 ? place(messages, shape->id)
                                                               : place_text(messages, id),
                                       .channel = place_text(messages, "kit"),
                                       .type = place_text(messages, "kit.test"),
                                       .content_type = place_text(messages, "application/json"),
                                       .payload = payload_of(messages, index, number, shape),
                                       .created_at_us = (int64_t)now.tv_sec * 1000000,
                                       .ttl_ms = -1,
                                       .attempt = attempts[index % (sizeof attempts / sizeof attempts[0])],
                                       .header_size = sizeof(struct outbox_header),
                                       .flags = payload_is_ours(index, shape) ? OUTBOX_MESSAGE_IS_JSON : 0};
    if (!shape->bare) {
        message->key = shape->key.len > 0 ? place(messages, shape->key) : place_text(messages, key);
        message->correlation_id = place_text(messages, "kit-correlation");
        message->causation_id = place_text(messages, "kit-causation");
        message->ttl_ms = 60000;
    }
    if (!shape->bare) {
        place_headers(messages, message, shape->headers ? shape->headers : one_of_each,
                      shape->headers ? shape->header_count : sizeof one_of_each / sizeof one_of_each[0],
                      shape->wide && messages->guarded ? 2 : 1);
    }
    if (shape->alter) {
        shape->alter(message, index, shape->round);
    }
}

static bool make(struct kit_messages *messages, size_t count, const struct kit_shape *shape, size_t bytes,
                 bool guarded)
{
    static atomic_uint numbers; /* ids, seqs and marks are unique as long as the process lives, and rise */
    struct kit_shape own = *shape;
    *messages = (struct kit_messages){.count = count,
                                      .first_mark = atomic_fetch_add(&numbers, (unsigned)count) + 1,
                                      .pages_bytes = round_up(bytes, page_bytes()),
                                      .guarded = guarded};
    messages->pages =
        mmap(NULL, messages->pages_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (messages->pages == MAP_FAILED) {
        *messages = (struct kit_messages){0};
        return false;
    }
    messages->list = take(messages, count * sizeof *messages->list);
    const struct outbox_message **pointers = take(messages, count * sizeof(void *));
    messages->pointers = pointers;
    if (shape->payload.ptr || shape->payload.len > 0) {
        own.payload = place(messages, shape->payload); /* one payload for all of them */
    }
    own.odd_payload = place(messages, shape->odd_payload);
    for (size_t at = 0; at < count; at++) {
        fill(messages, &messages->list[at], at, &own);
        pointers[at] = &messages->list[at];
    }
    if (!guarded) {
        (void)mprotect(messages->pages, messages->pages_bytes, PROT_READ);
    }
    return true;
}

static size_t headers_bytes(const struct kit_shape *shape)
{
    size_t bytes = 0;
    for (size_t at = 0; shape->headers && at < shape->header_count; at++) {
        bytes +=
            sizeof(struct outbox_header) + shape->headers[at].name.len + shape->headers[at].value.len + 64;
    }
    return bytes;
}

bool kit_messages_make(struct kit_messages *messages, size_t count, const struct kit_shape *shape)
{
    size_t each = sizeof(struct outbox_message) + sizeof(void *) + PER_MESSAGE_BYTES + shape->key.len +
                  shape->id.len + headers_bytes(shape);
    return make(messages, count, shape, count * each + shape->payload.len + shape->odd_payload.len + 4096,
                false);
}

bool kit_messages_make_guarded(struct kit_messages *messages, const struct kit_shape *shape)
{
    return make(messages, 1, shape, GUARDED_PAGES * page_bytes() + shape->payload.len, true);
}

void kit_messages_forbid(struct kit_messages *messages)
{
    (void)mprotect(messages->pages, messages->pages_bytes, PROT_NONE);
}

void kit_messages_finish(struct kit_messages *messages)
{
    if (messages->pages) {
        (void)munmap(messages->pages, messages->pages_bytes);
    }
    *messages = (struct kit_messages){0};
}
