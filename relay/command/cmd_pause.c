/* pause, resume - the operator's pauses of a channel, or of all; kept in the database until somebody ends
 * them. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/output.h"
#include "command/cli.h"
#include "store/limits.h"
#include "store/pause.h"
#include "store/schema.h"

enum { CONNECT_MS = 15000, LOOK_EVERY_NS = 50000000, WAIT_AT_MOST_MS = 660000, MAX_BYTES = 1 << 20 };

static const char ALL[] = "*";

struct request {
    const char *scope;
    const char *reason;
    int64_t for_ms; /* -1 = until somebody ends it */
    bool wait;
};

static int read_request(const struct cli *cli, struct request *request, struct err *err)
{
    *request = (struct request){.scope = cli->argument_count > 0 ? cli->arguments[0] : ALL,
                                .reason = cli->values[CLI_REASON],
                                .wait = cli_has(cli, CLI_WAIT)};
    if (cli->argument_count > 1) {
        return err_set(err, ERR_USAGE, "one channel at a time, or none for all");
    }
    if (request->scope[0] == '\0' || strlen(request->scope) > 255) {
        return err_set(err, ERR_USAGE, "a channel's name has 1 to 255 bytes");
    }
    if (cli_duration(cli, CLI_FOR, -1, &request->for_ms, err) != 0) {
        return -1;
    }
    return request->for_ms == 0 ? err_set(err, ERR_USAGE, "--for 0 pauses nothing: resume ends a pause") : 0;
}

static void name_scope(const struct request *request, char *out, size_t bytes)
{
    bool all = strcmp(request->scope, ALL) == 0;
    (void)snprintf(out, bytes, "%s%s",
                   all                             ? "all channels"
                   : strpbrk(request->scope, "*?") ? "channels like "
                                                   : "channel ",
                   all ? "" : request->scope);
}

/* A transaction's end wakes nobody outside: this looks now and then. What is in flight ends by
 * publish_timeout. */
static int await_in_flight(struct pg *pg, struct err *err)
{
    static const struct timespec moment = {.tv_nsec = LOOK_EVERY_NS};
    struct text transactions;
    int64_t count = 0;
    int64_t give_up_ms = clock_now_ms() + WAIT_AT_MOST_MS;
    text_init(&transactions, MAX_BYTES);
    int result = pause_in_flight(pg, &transactions, err);
    do {
        if (result == 0) {
            result = pause_still_in_flight(pg, text_get(&transactions), &count, err);
        }
        if (result == 0 && count > 0 && clock_now_ms() >= give_up_ms) {
            result = err_set(err, ERR_STOPPED, "paused, but %lld claims from before are still in flight",
                             (long long)count);
        }
        if (result == 0 && count > 0) {
            (void)nanosleep(&moment, NULL);
        }
    } while (result == 0 && count > 0);
    text_finish(&transactions);
    return result;
}

/* A name that nothing bears may be mistyped. Only to help: that nobody knows is not told. */
static void tell_of_unknown(struct pg *pg, const struct request *request)
{
    struct err err = {0};
    struct text in_force;
    bool known = true;
    text_init(&in_force, MAX_BYTES);
    int result = pause_known(pg, request->scope, &known, &in_force, &err);
    text_finish(&in_force);
    if (result == 0 && !known) {
        output_line(stdout, "note: no message that is here concerns that: is the name right?");
    }
}

/* What is paused, still or all the time: a name may be mistyped, and several pauses may concern a channel. */
static void tell_in_force(struct pg *pg, const struct request *request, bool was_paused)
{
    struct err err = {0};
    struct text in_force;
    bool known = true;
    text_init(&in_force, MAX_BYTES);
    int result = pause_known(pg, request->scope, &known, &in_force, &err);
    if (result == 0 && in_force.len > 0) {
        output_line(stdout, "%s: %s", was_paused ? "still paused are" : "paused are", text_get(&in_force));
    }
    text_finish(&in_force);
}

static int do_pause(struct pg *pg, const struct request *request, struct err *err)
{
    char scope[300];
    name_scope(request, scope, sizeof scope);
    if (pause_set(pg, request->scope, request->for_ms, request->reason, err) != 0) {
        return -1;
    }
    if (request->wait && await_in_flight(pg, err) != 0) {
        return -1;
    }
    output_line(stdout, "%s: paused%s", scope, request->wait ? ", and nothing of it is in flight" : "");
    if (strcmp(request->scope, ALL) != 0) {
        tell_of_unknown(pg, request);
    }
    return 0;
}

static int do_resume(struct pg *pg, const struct request *request, struct err *err)
{
    char scope[300];
    bool was_paused = false;
    name_scope(request, scope, sizeof scope);
    if (pause_end(pg, request->scope, &was_paused, err) != 0) {
        return -1;
    }
    output_line(stdout, "%s: %s", scope, was_paused ? "resumed" : "was not paused");
    tell_in_force(pg, request, was_paused);
    return 0;
}

static int with_database(struct cli *cli, int (*act)(struct pg *, const struct request *, struct err *))
{
    struct config config;
    struct request request;
    struct err err = {0};
    struct pg *pg = NULL;
    if (read_request(cli, &request, &err) != 0) {
        return cli_fail(&err);
    }
    int code = cli_load_config(cli, &config, CONFIG_NO_PLUGIN);
    if (code != 0) {
        return code;
    }
    const struct pg_options options = {config_text(&config, "database"), "outbox-relay pause", -1};
    if (limits_open(&pg, &options, NULL, clock_now_ms() + CONNECT_MS, &err) != 0 ||
        schema_check(pg, &err) != 0 || act(pg, &request, &err) != 0) {
        code = cli_fail(&err);
    }
    pg_close(pg);
    config_finish(&config);
    return code;
}

int cmd_pause(struct cli *cli)
{
    return with_database(cli, do_pause);
}

int cmd_resume(struct cli *cli)
{
    return with_database(cli, do_resume);
}
