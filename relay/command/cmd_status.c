/* status - the verdict first, then figures; the database alone is asked. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/output.h"
#include "command/cli.h"
#include "command/document.h"
#include "store/inspect.h"
#include "store/limits.h"
#include "store/schema.h"

enum { CONNECT_MS = 10000, STRANGERS_MS = 10000, JSON_MAX_BYTES = 64 << 20 };

static const char *text_at(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

/* A list that was cut says so. */
static void tell_more(const json_t *object, const char *name, const char *before, const char *behind)
{
    json_int_t more = json_integer_value(json_object_get(object, name));
    if (more > 0) {
        output_line(stdout, "%s and %lld more %s", before, (long long)more, behind);
    }
}

/* What is wrong with one relay that is alive; true if anything is. */
static bool tell_relay(const json_t *relay)
{
    bool troubled = strcmp(text_at(relay, "state"), "blocked") == 0;
    if (troubled) {
        output_line(stdout, "BLOCKED: relay %s: %s; nothing is lost", text_at(relay, "instance"),
                    text_at(relay, "reason"));
    }
    size_t at = 0;
    json_t *hold = NULL;
    json_array_foreach(json_object_get(relay, "holds"), at, hold)
    {
        output_line(stdout, "ON HOLD: channel %s: %s; next try in %lld s, nothing is lost",
                    text_at(hold, "channel"), text_at(hold, "reason"),
                    (long long)json_integer_value(json_object_get(hold, "next_try_in_s")));
        troubled = true;
    }
    tell_more(relay, "holds_more", "ON HOLD:", "channels");
    return troubled;
}

static bool tell_pauses(const json_t *status)
{
    size_t at = 0;
    json_t *pause = NULL;
    const json_t *pauses = json_object_get(status, "paused");
    json_array_foreach(pauses, at, pause)
    {
        bool all = strcmp(text_at(pause, "scope"), "*") == 0;
        const char *until = text_at(pause, "until");
        output_line(stdout, "PAUSED: %s%s by %s since %s%s%s%s%s; outbox-relay resume%s%s ends it",
                    all ? "all channels" : "channel ", all ? "" : text_at(pause, "scope"),
                    text_at(pause, "paused_by"), text_at(pause, "paused_at"), until[0] ? " until " : "",
                    until, text_at(pause, "reason")[0] ? ": " : "", text_at(pause, "reason"), all ? "" : " ",
                    all ? "" : text_at(pause, "scope"));
    }
    tell_more(status, "paused_more", "PAUSED:", "scopes");
    return json_array_size(pauses) > 0;
}

/* Whoever else stands in the way. */
static bool tell_strangers(const json_t *status)
{
    size_t at = 0;
    json_t *sentence = NULL;
    const json_t *strangers = json_object_get(status, "strangers");
    json_array_foreach(strangers, at, sentence)
    {
        output_line(stdout, "IN THE WAY: %s", json_string_value(sentence));
    }
    return json_array_size(strangers) > 0;
}

/* With order by key, rows behind these wait, too. */
static bool tell_retries(const json_t *status)
{
    size_t at = 0;
    json_t *retry = NULL;
    const json_t *retries = json_object_get(status, "retrying");
    json_array_foreach(retries, at, retry)
    {
        int64_t messages = json_integer_value(json_object_get(retry, "messages"));
        bool refused = json_integer_value(json_object_get(retry, "attempts")) > 0;
        output_line(stdout, "RETRYING: channel %s: %lld message%s %s: %s; next try in %lld s",
                    text_at(retry, "channel"), (long long)messages, messages == 1 ? "" : "s",
                    refused         ? messages == 1 ? "was refused" : "were refused"
                    : messages == 1 ? "is to be sent again after"
                                    : "are to be sent again after",
                    text_at(retry, "last_error"),
                    (long long)json_integer_value(json_object_get(retry, "next_try_in_s")));
    }
    return json_array_size(retries) > 0;
}

/* A sentence each: what is wrong, and that nothing is lost; the worst first. */
static void tell_verdict(const json_t *status)
{
    json_int_t waiting = json_integer_value(json_object_get(status, "backlog")) +
                         json_integer_value(json_object_get(status, "scheduled_due"));
    size_t index = 0;
    size_t alive = 0;
    json_t *relay = NULL;
    bool troubled = false;
    json_array_foreach(json_object_get(status, "relays"), index, relay)
    {
        if (!json_is_true(json_object_get(relay, "stale"))) {
            alive++;
            troubled = tell_relay(relay) || troubled;
        }
    }
    troubled = tell_strangers(status) || troubled;
    troubled = tell_pauses(status) || troubled;
    troubled = tell_retries(status) || troubled;
    if (alive == 0 && waiting > 0) {
        output_line(stdout, "STOPPED: no relay is running and %lld message%s: start 'outbox-relay run'",
                    (long long)waiting, waiting == 1 ? " waits" : "s wait");
    } else if (!troubled) {
        output_line(stdout, "OK: %zu relay%s running", alive, alive == 1 ? " is" : "s are");
    }
}

static void tell(const json_t *status)
{
    tell_verdict(status);
    output_line(stdout, "waiting %lld, oldest %.1f s; scheduled %lld; dead letters: %lld",
                (long long)json_integer_value(json_object_get(status, "backlog")),
                json_number_value(json_object_get(status, "oldest_message_age_s")),
                (long long)json_integer_value(json_object_get(status, "scheduled")),
                (long long)json_integer_value(json_object_get(status, "dead_letters")));
    size_t index = 0;
    json_t *channel = NULL;
    json_array_foreach(json_object_get(status, "channels"), index, channel)
    {
        output_line(stdout, "  channel %s: %lld waiting, oldest %.1f s", text_at(channel, "channel"),
                    (long long)json_integer_value(json_object_get(channel, "messages")),
                    json_number_value(json_object_get(channel, "oldest_age_s")));
    }
    json_array_foreach(json_object_get(status, "relays"), index, channel)
    {
        output_line(stdout, "  relay %s: %s since %s, backend %s%s", text_at(channel, "instance"),
                    text_at(channel, "state"), text_at(channel, "since"), text_at(channel, "backend"),
                    json_is_true(json_object_get(channel, "stale")) ? ", not seen for 30 s: dead" : "");
    }
    tell_more(status, "relays_more", " ", "relays");
}

static void add_stranger(void *context, const char *sentence)
{
    (void)json_array_append_new(context, json_string(sentence));
}

static int read_status(struct pg *pg, json_t **status, struct err *err)
{
    struct text document;
    text_init(&document, JSON_MAX_BYTES);
    int result = inspect_status(pg, &document, err);
    *status = result == 0 ? json_loads(text_get(&document), 0, NULL) : NULL;
    bool too_large = document.overflow;
    text_finish(&document);
    if (result == 0 && !*status) {
        return err_set(err, ERR_INTERNAL, "the status document %s",
                       too_large ? "is larger than it may be: outbox.relay and outbox.paused hold too much"
                                 : "is not JSON");
    }
    return result;
}

static int show(struct pg *pg, bool json, struct err *err)
{
    json_t *status = NULL;
    json_t *strangers = json_array();
    int result = read_status(pg, &status, err);
    if (result == 0) {
        result = inspect_strangers(pg, add_stranger, strangers, clock_now_ms() + STRANGERS_MS, err);
    }
    if (result == 0) {
        (void)json_object_set(status, "strangers", strangers);
        if (json) {
            result = document_print(status, JSON_REAL_PRECISION(15), err);
        } else {
            tell(status);
        }
    }
    json_decref(status);
    json_decref(strangers);
    return result;
}

int cmd_status(struct cli *cli)
{
    struct config config;
    struct err err = {0};
    struct pg *pg = NULL;
    int code = cli_load_config(cli, &config, CONFIG_NO_PLUGIN);
    if (code != 0) {
        return code;
    }
    const struct pg_options options = {config_text(&config, "database"), "outbox-relay status", -1};
    if (limits_open(&pg, &options, NULL, clock_now_ms() + CONNECT_MS, &err) != 0 ||
        schema_check(pg, &err) != 0 || show(pg, cli_has(cli, CLI_JSON), &err) != 0) {
        code = cli_fail(&err);
    }
    pg_close(pg);
    config_finish(&config);
    return code;
}
