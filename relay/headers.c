/* headers - the headers column of a row, a flat JSON object of scalars, as the header array of a message. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "batch.h"

static struct outbox_bytes copy_bytes(struct batch *batch, const char *ptr, size_t len)
{
    const char *copy = arena_copy(&batch->arena, (struct bytes){ptr, len});
    return (struct outbox_bytes){copy, copy ? len : 0};
}

/* false when the value is an array, an object, or memory is short. */
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
        length = snprintf(number, sizeof number, "%.17g", json_real_value(value));
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

void batch_set_headers(struct batch *batch, struct row *row, struct outbox_bytes json)
{
    if (json.len == 2 && memcmp(json.ptr, "{}", 2) == 0) {
        return;
    }
    json_error_t fault;
    json_t *object = json_loadb(json.ptr, json.len, JSON_REJECT_DUPLICATES, &fault);
    if (!json_is_object(object)) {
        batch_refuse(batch, row, "rejected", "the headers are not a JSON object: %s at position %d",
                     object ? "another type" : fault.text, object ? 0 : fault.position);
        json_decref(object);
        return;
    }
    struct outbox_header *headers = arena_alloc(&batch->arena, json_object_size(object) * sizeof *headers);
    const char *name = NULL;
    json_t *value = NULL;
    size_t count = 0;
    json_object_foreach(object, name, value)
    {
        if (!headers) {
            batch_refuse(batch, row, "rejected", "the headers do not fit into memory");
            break;
        }
        struct outbox_header *header = &headers[count];
        header->name = copy_bytes(batch, name, strlen(name));
        if (!header->name.ptr || !read_value(batch, header, value)) {
            batch_refuse(
                batch, row, "rejected",
                "header '%.80s' is an array or object: brokers carry strings, numbers, true, false and null",
                name);
            break;
        }
        count++;
    }
    json_decref(object);
    row->message.headers = headers;
    row->message.header_count = count;
}
