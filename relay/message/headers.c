/* headers - the headers column of a row, a flat JSON object of scalars, as the header array of a message. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "message/batch.h"

/* So that those of one row always fit into an empty arena, whatever they are made of. */
enum { HEADERS_MAX_BYTES = 16 << 20 };

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

static void read_object(struct batch *batch, struct row *row, json_t *object)
{
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
    errno = 0; /* jansson tells most shortages as something else */
    json_t *object = json_loadb(json.ptr, json.len, JSON_REJECT_DUPLICATES, &fault);
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
