/* headers - the headers column of a row, a flat JSON object of scalars, as the header array of a message. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message/batch.h"

/* So that those of one row always fit into an empty arena, whatever they are made of; and no library has to
 * walk lists of a million. */
enum { HEADERS_MAX_BYTES = 16 << 20, HEADERS_MAX = 1000 };

static struct outbox_bytes copy_bytes(struct batch *batch, const char *ptr, size_t len)
{
    const char *copy = arena_copy(&batch->arena, (struct bytes){ptr, len});
    return (struct outbox_bytes){copy, copy ? len : 0};
}

/* A good message must not become a dead letter because memory is short now. */
static void hold(struct row *row)
{
    row->verdict = OUTBOX_HOLD;
    row->error = "memory was short when its headers were read";
}

/* The fewest digits that are still this number: 1.1, not 1.1000000000000001. */
static int print_real(char *out, size_t out_bytes, double number)
{
    int length = 0;
    for (int digits = 15; digits <= 17; digits++) {
        length = snprintf(out, out_bytes, "%.*g", digits, number);
        if (strtod(out, NULL) == number) {
            break;
        }
    }
    return length;
}

/* false when memory is short. */
static bool read_value(struct batch *batch, struct outbox_header *header, json_t *value)
{
    char number[40];
    int length = 0;
    switch (json_typeof(value)) {
    case JSON_STRING:
        header->type = OUTBOX_VALUE_STRING;
        header->value = copy_bytes(batch, json_string_value(value), json_string_length(value));
        return header->value.ptr != NULL;
    case JSON_INTEGER:
        header->type = OUTBOX_VALUE_INT;
        length = snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        header->type = OUTBOX_VALUE_DOUBLE;
        length = print_real(number, sizeof number, json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        header->type = OUTBOX_VALUE_BOOL;
        header->value =
            json_is_true(value) ? (struct outbox_bytes){"true", 4} : (struct outbox_bytes){"false", 5};
        return true;
    case JSON_NULL:
        header->type = OUTBOX_VALUE_NULL;
        header->value = (struct outbox_bytes){"", 0};
        return true;
    case JSON_OBJECT:
    case JSON_ARRAY:
        return false;
    }
    header->value = copy_bytes(batch, number, (size_t)length);
    return header->value.ptr != NULL;
}

static void read_object(struct batch *batch, struct row *row, json_t *object)
{
    if (json_object_size(object) > HEADERS_MAX) {
        batch_refuse(batch, row, "rejected", "there are more than %d headers", HEADERS_MAX);
        return;
    }
    struct outbox_header *headers = arena_alloc(&batch->arena, json_object_size(object) * sizeof *headers);
    const char *name = NULL;
    json_t *value = NULL;
    size_t count = 0;
    json_object_foreach(object, name, value)
    {
        struct outbox_header *header = headers ? &headers[count] : NULL;
        if (json_is_object(value) || json_is_array(value)) {
            batch_refuse(
                batch, row, "rejected",
                "header '%.80s' is an array or object: brokers carry strings, numbers, true, false and null",
                name);
            return;
        }
        if (!header || !(header->name = copy_bytes(batch, name, strlen(name))).ptr ||
            !read_value(batch, header, value)) {
            hold(row);
            return;
        }
        count++;
    }
    row->message.headers = headers;
    row->message.header_count = count;
}

/* The number at *from, which moves behind it, and whether no 64-bit integer, or no double, can hold it. */
static bool skip_number(const char **from, const char *end)
{
    char text[400];
    const char *begin = *from;
    while (*from < end && strchr("+-.eE0123456789", **from) && **from) {
        ++*from;
    }
    size_t len = (size_t)(*from - begin);
    if (len >= sizeof text) {
        return true;
    }
    memcpy(text, begin, len);
    text[len] = '\0';
    errno = 0;
    bool whole = strpbrk(text, ".eE") == NULL;
    (void)(whole ? (double)strtoll(text, NULL, 10) : strtod(text, NULL));
    return errno == ERANGE;
}

/* jansson knows no larger numbers: they become texts, digit by digit. `out` has room for two more bytes a
 * number. */
static size_t quote_large_numbers(struct outbox_bytes json, char *out)
{
    const char *end = json.ptr + json.len;
    bool in_text = false;
    size_t used = 0;
    for (const char *at = json.ptr; at < end;) {
        const char *begin = at;
        bool large = !in_text && strchr("-0123456789", *at) && *at && skip_number(&at, end);
        if (at == begin) {
            in_text = *at == '"' ? !in_text : in_text;
            at += *at == '\\' && at + 1 < end ? 2 : 1; /* an escape, within a text */
        }
        out[used] = '"';
        used += large;
        memcpy(out + used, begin, (size_t)(at - begin));
        used += (size_t)(at - begin);
        out[used] = '"';
        used += large;
    }
    return used;
}

/* NULL with *fault filled, or with errno ENOMEM. */
static json_t *parse(struct outbox_bytes json, json_error_t *fault)
{
    errno = 0; /* jansson tells most shortages as something else */
    json_t *object = json_loadb(json.ptr, json.len, JSON_REJECT_DUPLICATES, fault);
    if (object || json_error_code(fault) != json_error_numeric_overflow) {
        return object;
    }
    char *quoted = malloc(2 * json.len + 2);
    if (quoted) {
        errno = 0;
        object = json_loadb(quoted, quote_large_numbers(json, quoted), JSON_REJECT_DUPLICATES, fault);
    } else {
        errno = ENOMEM;
    }
    free(quoted);
    return object;
}

void batch_set_headers(struct batch *batch, struct row *row, struct outbox_bytes json)
{
    if (json.len == 2 && memcmp(json.ptr, "{}", 2) == 0) {
        return;
    }
    if (json.len > HEADERS_MAX_BYTES) {
        batch_refuse(batch, row, "rejected", "the headers are larger than %d bytes", HEADERS_MAX_BYTES);
        return;
    }
    json_error_t fault;
    json_t *object = parse(json, &fault);
    if (!object && errno == ENOMEM) {
        hold(row);
        return;
    }
    if (!json_is_object(object)) {
        batch_refuse(batch, row, "rejected", "the headers are not a JSON object: %s at position %d",
                     object ? "another type" : fault.text, object ? 0 : fault.position);
        json_decref(object);
        return;
    }
    read_object(batch, row, object);
    json_decref(object);
}
