#include "base/bytes.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"

struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static uint64_t hash_key[2]; /* of this process */

static void make_hash_key(void)
{
    if (getrandom(hash_key, sizeof hash_key, GRND_NONBLOCK) != (ssize_t)sizeof hash_key) {
        hash_key[0] = (uint64_t)clock_now_ms() << 20 ^ (uint64_t)getpid(); /* early at boot */
        hash_key[1] = (uint64_t)(uintptr_t)&hash_key;
    }
}

static uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], unsigned rounds)
{
    for (unsigned round = 0; round < rounds; round++) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32) + v[3];
        v[2] += v[1];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

uint64_t bytes_hash_by(const uint64_t key[2], struct bytes view)
{
    uint64_t v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                     key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};
    size_t at = 0;
    uint64_t word = 0;
    for (; at + sizeof word <= view.len; at += sizeof word) {
        memcpy(&word, view.ptr + at, sizeof word);
        v[3] ^= word;
        sip_rounds(v, 1);
        v[0] ^= word;
    }
    word = 0;
    if (at < view.len) {
        memcpy(&word, view.ptr + at, view.len - at);
    }
    word ^= (uint64_t)view.len << 56;
    v[3] ^= word;
    sip_rounds(v, 1);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_rounds(v, 3);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t bytes_hash(struct bytes view)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_hash_key);
    return bytes_hash_by(hash_key, view);
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
    va_start(args, format);
    text_addv(text, format, args);
    va_end(args);
}

void text_addv(struct text *text, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    if (length >= 0 && make_room(text, (size_t)length)) {
        (void)vsnprintf(text->ptr + text->len, (size_t)length + 1, format, again);
        text->len += (size_t)length;
    }
    va_end(again);
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

struct bytes text_view(const struct text *text)
{
    return (struct bytes){text_get(text), text->len};
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
