/* dead - the dead letters: list, show, retry, discard, export. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/output.h"
#include "base/printable.h"
#include "command/cli.h"
#include "command/document.h"
#include "store/dead.h"
#include "store/limits.h"
#include "store/schema.h"

enum {
    CONNECT_MS = 15000,
    LIST_AT_MOST = 100,
    MOVE_AT_ONCE = 1000,
    SECOND_MS = 1000,
    ERROR_SHOWN_BYTES = 160,
    IDS_MAX_BYTES = 64 << 10,
    PATTERN_MAX_BYTES = 2048
};

/* One call of `dead`. */
struct dead {
    struct pg *pg;
    struct dead_filter filter;
    struct text ids;
    const char *const *asked; /* the same, one by one; borrowed */
    size_t asked_count;
    bool found[CLI_MAX_ARGUMENTS]; /* which of them are there */
    struct text pattern;
    int64_t limit; /* 0 = not given */
    int64_t rate;  /* a second; 0 = as fast as it goes */
    bool json;
    bool dry_run;
    bool yes;
    bool all;
    int (*act)(struct dead *dead, struct err *err);
    json_t *list; /* what --json prints */
    bool cut;     /* memory did not suffice for a letter */
    int64_t total;
};

static int read_ids(const struct cli *cli, struct dead *dead, struct err *err)
{
    text_add(&dead->ids, "{");
    for (size_t at = 1; at < cli->argument_count; at++) {
        if (!cli_is_uuid(cli->arguments[at])) {
            return err_set(err, ERR_USAGE, "'%s' is not the id of a message", cli->arguments[at]);
        }
        text_addf(&dead->ids, "%s%s", at > 1 ? "," : "", cli->arguments[at]);
    }
    text_add(&dead->ids, "}");
    dead->asked = (const char *const *)cli->arguments + 1;
    dead->asked_count = cli->argument_count > 1 ? cli->argument_count - 1 : 0;
    dead->filter.ids = cli->argument_count > 1 ? text_get(&dead->ids) : NULL;
    return 0;
}

static int read_filter(const struct cli *cli, struct dead *dead, struct err *err)
{
    static const char *const reasons[] = {"rejected", "expired", "attempts", "age"};
    const char *reason = cli->values[CLI_REASON];
    bool known = !reason;
    for (size_t at = 0; at < sizeof reasons / sizeof reasons[0] && !known; at++) {
        known = strcmp(reasons[at], reason) == 0;
    }
    if (!known) {
        return err_set(err, ERR_USAGE, "--reason: '%s' is none of rejected, expired, attempts, age", reason);
    }
    dead->filter.reason = reason;
    if (cli_has(cli, CLI_CHANNEL)) {
        text_add_like(&dead->pattern, cli->values[CLI_CHANNEL]);
        dead->filter.channel = text_get(&dead->pattern);
    }
    if (cli_duration(cli, CLI_SINCE, -1, &dead->filter.since_ms, err) != 0 ||
        cli_count(cli, CLI_LIMIT, 0, &dead->limit, err) != 0 ||
        cli_count(cli, CLI_RATE, 0, &dead->rate, err) != 0) {
        return -1;
    }
    dead->json = cli_has(cli, CLI_JSON);
    dead->dry_run = cli_has(cli, CLI_DRY_RUN);
    dead->yes = cli_has(cli, CLI_YES);
    dead->all = cli_has(cli, CLI_ALL);
    return read_ids(cli, dead, err);
}

/* ---- list, show, export ---- */

static void set_text(json_t *object, const char *name, const char *value)
{
    (void)json_object_set_new(object, name, value ? json_string(value) : json_null());
}

static void see_letter(void *context, const struct dead_letter *letter)
{
    struct dead *dead = context;
    dead->total++;
    if (!dead->json) {
        char error[ERROR_SHOWN_BYTES];
        printable_copy(error, sizeof error, bytes_of(letter->error));
        output_line(stdout, "%s  %s  %s  %s%s%s  %s after %s: %s", letter->died_at, letter->id,
                    letter->channel, letter->type, letter->key ? "  key " : "",
                    letter->key ? letter->key : "", letter->reason, letter->attempts, error);
        return;
    }
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", letter->id, "channel",
                               letter->channel, "type", letter->type, "reason", letter->reason, "backend",
                               letter->backend, "died_at", letter->died_at, "last_error", letter->error);
    set_text(object, "key", letter->key);
    (void)json_object_set_new(object, "attempts", json_integer(strtoll(letter->attempts, NULL, 10)));
    (void)json_object_set_new(object, "seq",
                              letter->seq ? json_integer(strtoll(letter->seq, NULL, 10)) : json_null());
    (void)json_array_append_new(dead->list, object);
}

static int print_json(const char *name, json_t *list, int64_t total, struct err *err)
{
    json_t *document = json_pack("{s:O, s:I}", name, list, "count", (json_int_t)total);
    int result = document_print(document, 0, err);
    json_decref(document);
    return result;
}

static int list(struct dead *dead, struct err *err)
{
    int64_t limit = dead->limit > 0 ? dead->limit : LIST_AT_MOST;
    if (dead_list(dead->pg, &dead->filter, limit, see_letter, dead, err) != 0) {
        return -1;
    }
    if (dead->json) {
        return print_json("dead_letters", dead->list, dead->total, err);
    }
    if (dead->total == 0) {
        bool some =
            dead->filter.ids || dead->filter.reason || dead->filter.channel || dead->filter.since_ms >= 0;
        output_line(stdout, "no dead letters%s",
                    some ? " of that selection; without one, 'dead list' shows all" : "");
    } else if (dead->total == limit) {
        output_line(stdout, "the newest %lld; --limit shows more", (long long)limit);
    }
    return 0;
}

/* One JSON object per line, the payload as text or base64. */
static void see_export(void *context, const struct dead_export *letter)
{
    struct dead *dead = context;
    dead->total++;
    struct text line;
    text_init(&line, SIZE_MAX - 1);
    text_add_bytes(&line, (struct bytes){letter->fields, strlen(letter->fields) - 1}); /* without "}" */
    if (letter->payload) {
        text_add(&line, ", \"payload\": ");
        text_add_json(&line, bytes_of(letter->payload));
    } else if (letter->payload_base64) {
        text_add(&line, ", \"payload_base64\": \"");
        for (const char *at = letter->payload_base64; *at;) {
            size_t len = strcspn(at, "\n"); /* PostgreSQL breaks it into lines */
            text_add_bytes(&line, (struct bytes){at, len});
            at += len + (at[len] == '\n');
        }
        text_add(&line, "\"");
    }
    text_add(&line, "}\n");
    dead->cut = dead->cut || line.overflow;
    output_text(stdout, text_view(&line));
    text_finish(&line);
}

static int export(struct dead *dead, struct err *err)
{
    int64_t limit = dead->limit > 0 ? dead->limit : INT64_MAX;
    int result = dead_each(dead->pg, &dead->filter, limit, see_export, dead, err);
    return result == 0 && dead->cut ? err_set(err, ERR_INTERNAL, "out of memory: a letter is not whole")
                                    : result;
}

static int show(struct dead *dead, struct err *err)
{
    if (!dead->filter.ids) {
        return err_set(err, ERR_USAGE, "dead show: which id?");
    }
    return export(dead, err);
}

/* ---- retry, discard ---- */

static const char *plural(int64_t count)
{
    return count == 1 ? "" : "s";
}

static void see_count(void *context, const struct dead_count *count)
{
    struct dead *dead = context;
    dead->total += count->count;
    if (dead->json) {
        json_t *object = json_pack("{s:s, s:s, s:I}", "channel", count->channel, "reason", count->reason,
                                   "count", (json_int_t)count->count);
        (void)json_array_append_new(dead->list, object);
    } else {
        output_line(stdout, "  %lld of channel %s, %s: %s", (long long)count->count, count->channel,
                    count->reason, count->error);
    }
}

static int rehearse(struct dead *dead, const char *verb, struct err *err)
{
    if (dead_count(dead->pg, &dead->filter, see_count, dead, err) != 0) {
        return -1;
    }
    if (dead->json) {
        return print_json("would_change", dead->list, dead->total, err);
    }
    bool some = dead->limit > 0 && dead->limit < dead->total;
    output_line(stdout, "%s%lld dead letter%s would be %s; nothing was done",
                some ? "of these, the oldest " : "", (long long)(some ? dead->limit : dead->total),
                plural(some ? dead->limit : dead->total), verb);
    return 0;
}

typedef int change_function(struct pg *pg, const struct dead_filter *filter, int64_t newest, int64_t limit,
                            int64_t *affected, struct err *err);

/* In pieces, each of them whole; with --rate one a second. What is not done yet when it is interrupted stays
 * dead. */
static int change_all(struct dead *dead, change_function *change, struct err *err)
{
    int64_t left = dead->limit > 0 ? dead->limit : INT64_MAX;
    int64_t piece = dead->rate > 0 ? dead->rate : MOVE_AT_ONCE;
    int64_t newest = 0; /* what dies again meanwhile is not of this round */
    if (dead_newest(dead->pg, &newest, err) != 0) {
        return -1;
    }
    for (;;) {
        int64_t affected = 0;
        int64_t next_ms = clock_now_ms() + SECOND_MS;
        if (change(dead->pg, &dead->filter, newest, piece < left ? piece : left, &affected, err) != 0) {
            return -1;
        }
        dead->total += affected;
        left -= affected;
        if (affected == 0 || left <= 0) {
            return 0;
        }
        int64_t wait_ms = dead->rate > 0 ? next_ms - clock_now_ms() : 0;
        const struct timespec wait = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000};
        if (wait_ms > 0) {
            (void)nanosleep(&wait, NULL);
        }
    }
}

static int change(struct dead *dead, change_function *function, const char *verb, struct err *err)
{
    if (dead->dry_run) {
        return rehearse(dead, verb, err);
    }
    int result = change_all(dead, function, err);
    if (dead->json) {
        output_line(stdout, "{\"%s\":%lld}", verb, (long long)dead->total);
    } else {
        output_line(stdout, "%lld dead letter%s %s", (long long)dead->total, plural(dead->total), verb);
    }
    return result;
}

static int retry(struct dead *dead, struct err *err)
{
    return change(dead, dead_retry, "retried", err);
}

static int discard(struct dead *dead, struct err *err)
{
    if (!dead->yes && !dead->dry_run) {
        return err_set(err, ERR_USAGE,
                       "dead discard deletes messages for good: look with --dry-run, then say --yes");
    }
    return change(dead, dead_discard, "discarded", err);
}

/* ---- the command ---- */

static const struct {
    const char *name;
    int (*act)(struct dead *dead, struct err *err);
} actions[] = {{"list", list}, {"show", show}, {"retry", retry}, {"discard", discard}, {"export", export}};

static int find_action(const struct cli *cli, struct dead *dead, struct err *err)
{
    const char *word = cli->argument_count > 0 ? cli->arguments[0] : "list";
    for (size_t at = 0; at < sizeof actions / sizeof actions[0]; at++) {
        dead->act = strcmp(actions[at].name, word) == 0 ? actions[at].act : dead->act;
    }
    return dead->act ? 0
                     : err_set(err, ERR_USAGE, "dead %s: write list, show, retry, discard or export", word);
}

/* All of them only if that is said. */
static int check_selection(const struct dead *dead, struct err *err)
{
    const struct dead_filter *filter = &dead->filter;
    bool some = filter->ids || filter->reason || filter->channel || filter->since_ms >= 0;
    bool changes = dead->act == retry || dead->act == discard;
    return !changes || some || dead->all || dead->dry_run
               ? 0
               : err_set(err, ERR_USAGE,
                         "say which dead letters: IDs, --reason, --channel, --since, or --all");
}

/* ---- ids that name nothing ---- */

static void see_id(void *context, const struct dead_letter *letter)
{
    struct dead *dead = context;
    for (size_t at = 0; at < dead->asked_count; at++) {
        dead->found[at] = dead->found[at] || strcasecmp(dead->asked[at], letter->id) == 0;
    }
}

static int expect_all(const struct dead *dead, struct err *err)
{
    size_t missing = 0;
    const char *first = "";
    for (size_t at = dead->asked_count; at-- > 0;) {
        missing += !dead->found[at];
        first = dead->found[at] ? first : dead->asked[at];
    }
    return missing == 0 || dead->act == list
               ? 0
               : err_set(err, ERR_USAGE, "no dead letter of this selection has the id %s%s", first,
                         missing > 1 ? ", nor others of those given" : "");
}

/* What is there is done, and then it is told what was not. */
static int act(struct dead *dead, struct err *err)
{
    if (dead->asked_count > 0 && dead_list(dead->pg, &dead->filter, INT64_MAX, see_id, dead, err) != 0) {
        return -1;
    }
    return dead->act(dead, err) == 0 ? expect_all(dead, err) : -1;
}

static int with_database(const struct config *config, struct dead *dead, struct err *err)
{
    const struct pg_options options = {config_text(config, "database"), "outbox-relay dead", -1};
    if (limits_open(&dead->pg, &options, NULL, clock_now_ms() + CONNECT_MS, err) != 0 ||
        schema_check(dead->pg, err) != 0) {
        return -1;
    }
    return act(dead, err);
}

int cmd_dead(struct cli *cli)
{
    struct config config;
    struct err err = {0};
    struct dead dead = {.list = json_array()};
    text_init(&dead.ids, IDS_MAX_BYTES);
    text_init(&dead.pattern, PATTERN_MAX_BYTES);
    int code = find_action(cli, &dead, &err) == 0 && read_filter(cli, &dead, &err) == 0 &&
                       check_selection(&dead, &err) == 0
                   ? 0
                   : cli_fail(&err);
    if (code == 0 && (code = cli_load_config(cli, &config, CONFIG_NO_PLUGIN)) == 0) {
        code = with_database(&config, &dead, &err) == 0 ? 0 : cli_fail(&err);
        config_finish(&config);
    }
    pg_close(dead.pg);
    json_decref(dead.list);
    text_finish(&dead.ids);
    text_finish(&dead.pattern);
    return code;
}
