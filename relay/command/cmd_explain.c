/* explain - what would be sent, and where to; sends nothing, locks nothing. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/output.h"
#include "command/cli.h"
#include "command/document.h"
#include "message/template.h"
#include "service/program.h"
#include "store/inspect.h"

enum { DESTINATION_BYTES = 4096 };

struct explained {
    struct inspect_place place;
    char destination[DESTINATION_BYTES];
    bool rejected; /* the destination says why */
};

static json_t *string_of(struct outbox_bytes text)
{
    json_t *string = json_stringn(text.ptr, text.len);
    return string ? string : json_string("(not UTF-8)");
}

static json_t *headers_of(const struct outbox_message *message)
{
    json_t *headers = json_object();
    for (size_t at = 0; at < message->header_count; at++) {
        const struct outbox_header *header = outbox_header_at(message, at);
        (void)json_object_setn_new(headers, header->name.ptr, header->name.len, string_of(header->value));
    }
    return headers;
}

/* The payload as text where it is text; else only its size. */
static json_t *describe(const struct outbox_message *message, const struct explained *explained)
{
    json_t *object = json_object();
    const struct {
        const char *name;
        struct outbox_bytes value;
    } texts[] = {{"id", message->id},
                 {"channel", message->channel},
                 {"type", message->type},
                 {"key", message->key},
                 {"correlation_id", message->correlation_id},
                 {"causation_id", message->causation_id},
                 {"reply_to", message->reply_to},
                 {"content_type", message->content_type}};
    (void)json_object_set_new(object, "stands_in", json_string(explained->place.table));
    (void)json_object_set_new(object, "waits_for", json_string(explained->place.waits));
    (void)json_object_set_new(object, explained->rejected ? "would_be_rejected" : "destination",
                              json_string(explained->destination));
    (void)json_object_set_new(object, "kind", json_string(kind_name(message->kind)));
    for (size_t at = 0; at < sizeof texts / sizeof texts[0]; at++) {
        (void)json_object_set_new(object, texts[at].name,
                                  texts[at].value.len > 0 ? string_of(texts[at].value) : json_null());
    }
    (void)json_object_set_new(object, "seq", json_integer(message->seq));
    (void)json_object_set_new(object, "attempt", json_integer(message->attempt));
    (void)json_object_set_new(object, "expires_in_ms",
                              message->ttl_ms >= 0 ? json_integer(message->ttl_ms) : json_null());
    (void)json_object_set_new(object, "headers", headers_of(message));
    (void)json_object_set_new(object, "payload_bytes", json_integer((json_int_t)message->payload.len));
    (void)json_object_set_new(object, "payload", string_of(message->payload));
    return object;
}

static void tell(const json_t *object)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach((json_t *)object, name, value)
    {
        if (json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0)) {
            continue;
        }
        char *other = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        output_line(stdout, "%-17s %s", name, other ? other : json_string_value(value));
        free(other);
    }
}

/* A row that is refused before a backend sees it (expired, bad headers) needs no destination. */
static void find_destination(const struct program *program, const struct row *row,
                             struct explained *explained)
{
    struct err err = {0};
    bool known = true;
    explained->rejected = row->verdict == OUTBOX_REJECTED;
    if (explained->rejected) {
        (void)snprintf(explained->destination, DESTINATION_BYTES, "%s", row->error);
    } else if (backend_explain(program->backend, &row->message, explained->destination, DESTINATION_BYTES,
                               &known, &err) != 0) {
        explained->rejected = true;
        (void)snprintf(explained->destination, DESTINATION_BYTES, "%s", err.text);
    } else if (!known) {
        (void)snprintf(explained->destination, DESTINATION_BYTES, "backend %s does not tell",
                       backend_name(program->backend));
    }
}

static int explain(struct program *program, const char *id, bool json, struct err *err)
{
    struct batch batch;
    struct pg *pg = NULL;
    struct explained explained = {.rejected = false};
    bool found = false;
    if (batch_init(&batch, 1, err) != 0) {
        return -1;
    }
    int result = program_open(program, err);
    if (result == 0) {
        result = program_connect(program, program->wake.stop_fd, CLOCK_NEVER_MS, &pg, err);
    }
    if (result == 0) {
        const struct inspect_filter filter = {.include = program_included(program),
                                              .exclude = program_excluded(program)};
        result = inspect_message(pg, id, &filter, config_number(&program->config, "batch.max_message_bytes"),
                                 &batch, &explained.place, &found, err);
    }
    if (result == 0 && !found) {
        result = err_set(err, ERR_USAGE,
                         "no message with id %s waits here: it was delivered, or never committed", id);
    }
    if (result == 0) {
        find_destination(program, &batch.rows[0], &explained);
        json_t *object = describe(&batch.rows[0].message, &explained);
        if (json) {
            result = document_print(object, 0, err);
        } else {
            tell(object);
        }
        json_decref(object);
    }
    pg_close(pg);
    batch_finish(&batch);
    return result;
}

int cmd_explain(struct cli *cli)
{
    struct config config;
    struct program program;
    struct err err = {0};
    const char *id = cli->values[CLI_ID];
    if (!id || !cli_is_uuid(id)) {
        (void)err_set(&err, ERR_USAGE, "explain --id: '%s' is not the id of a message", id ? id : "");
        return cli_fail(&err);
    }
    int code = cli_load_config(cli, &config, CONFIG_LOADS_PLUGIN);
    if (code != 0) {
        return code;
    }
    code = program_init(&program, &config, &err) == 0 ? 0 : cli_fail(&err);
    if (code == 0 && explain(&program, id, cli_has(cli, CLI_JSON), &err) != 0) {
        code = cli_fail(&err);
    }
    program_finish(&program);
    return code;
}
