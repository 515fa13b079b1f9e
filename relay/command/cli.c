#include "command/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/option.h"
#include "base/output.h"
#include "command/argv.h"
#include "config/config_keys.h"
#include "service/process.h"

extern char **environ;

static const struct {
    const char *name;
    char letter;          /* 0 = the long form only */
    const char *argument; /* NULL = none */
    const char *key;      /* the configuration key that it sets */
    const char *help;
} flags[CLI_FLAGS] = {
    [CLI_CONFIG] = {"config", 'c', "FILE", NULL,
                    "configuration (default /etc/outbox-relay.yaml where it exists)"},
    [CLI_DATABASE] = {"database", 'd', "CONNINFO", "database", "libpq connection string"},
    [CLI_BACKEND] = {"backend", 'b', "NAME|PATH", "backend", "amqp, http, stdout, null, fail, or a plugin"},
    [CLI_INSTANCE] = {"instance", 'i', "NAME", "instance", "name of this process (default host and pid)"},
    [CLI_SET] = {"option", 'o', "KEY=VALUE", NULL, "any option by its full key, such as amqp.url=..."},
    [CLI_LOG_LEVEL] = {"log-level", 'l', "LEVEL", "log.level", "error, warning, info or debug"},
    [CLI_LOG_FORMAT] = {"log-format", 'f', "FORMAT", "log.format", "text, logfmt or json"},
    [CLI_HELP] = {"help", 'h', NULL, NULL, "this text"},
    [CLI_VERSION] = {"version", 'V', NULL, NULL, "version of the program and its libraries"},
    [CLI_DRY_RUN] = {"dry-run", 'n', NULL, NULL, "show what would be done, do nothing"},
    [CLI_JSON] = {"json", 'j', NULL, NULL, "the result as one JSON object"},
    [CLI_CONNECT] = {"connect", 'C', NULL, NULL, "also try database, privileges, schema and broker"},
    [CLI_MAX_TIME] = {"max-time", 't', "DURATION", NULL, "stop after this long, exit code 75"},
    [CLI_MAX_MESSAGES] = {"max-messages", 'm', "COUNT", NULL, "stop after about this many, exit code 75"},
    [CLI_QUIET] = {"quiet", 'q', NULL, NULL, "no progress"},
    [CLI_PROXY] =
        {"proxy", 'p', "OPTION[=PORT]", NULL,
         "backends test: the option that holds host:port, to put faults in between; and where to listen"},
    [CLI_REFUSING] = {"refusing", 0, "KEY=VALUE", NULL,
                      "backends test: an option with which the destination refuses every message"},
    [CLI_ONLY] = {"only", 0, "NUMBER|TEXT", NULL,
                  "backends test: the test of that number, or those with that in their name"},
    [CLI_LIST] = {"list", 0, NULL, NULL, "backends test: numbers and names of the tests"},
    [CLI_ORDER] = {"order", 0, "none|key", NULL, "order of delivery, for all relays of this outbox"},
    [CLI_LANES] =
        {"lanes", 0, "COUNT", NULL,
         "with --order key: a power of two (default 64); workers share them, at most one worker to a lane"},
    [CLI_REASON] = {"reason", 0, "TEXT", NULL,
                    "dead: rejected, expired, attempts or age; pause: why, for people"},
    [CLI_CHANNEL] = {"channel", 0, "CHANNEL", NULL, "only messages of this channel"},
    [CLI_SINCE] = {"since", 0, "DURATION", NULL, "only what died at most this long ago, such as 2h"},
    [CLI_LIMIT] = {"limit", 0, "COUNT", NULL, "at most so many"},
    [CLI_RATE] = {"rate", 0, "COUNT", NULL, "so many messages a second"},
    [CLI_YES] = {"yes", 'y', NULL, NULL, "do it without asking"},
    [CLI_FOR] = {"for", 0, "DURATION", NULL, "the pause ends by itself after this long"},
    [CLI_WAIT] = {"wait", 'w', NULL, NULL, "return when nothing of it is in flight any more"},
    [CLI_ID] = {"id", 0, "ID", NULL, "the message's id"},
    [CLI_ALL] = {"all", 0, NULL, NULL, "all dead letters, whatever their channel, reason and age"},
};

static const unsigned global_flags = (1u << CLI_DRY_RUN) - 1;

static const int64_t DURATION_MAX_MS = INT64_C(10) * 366 * 86400 * 1000;

enum {
    LONG_ONLY = 256, /* getopt's codes of flags without a letter begin here */
    WORD_MAX_BYTES = 24
};

static int code_of(int flag)
{
    return flags[flag].letter ? flags[flag].letter : LONG_ONLY + flag;
}

static const struct cli_command *find_command(const struct cli_command *commands, const char *name)
{
    for (; commands->name; commands++) {
        if (strcmp(commands->name, name) == 0) {
            return commands;
        }
    }
    return NULL;
}

/* The name in reach of a mistyped one; NULL if there is none. */
static const char *nearer(const char *word, const char *name, const char *best, size_t *best_distance)
{
    size_t distance = option_distance(word, name);
    if (distance >= *best_distance) {
        return best;
    }
    *best_distance = distance;
    return name;
}

/* Who leaves out a word, or "KEY=", has a secret where a command or an option is read: only what looks like
 * one of them is repeated. */
static bool is_a_word(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz-");
    return len > 0 && len <= WORD_MAX_BYTES && text[len] == '\0';
}

static int unknown_command(const struct cli_command *commands, const char *word, struct err *err)
{
    const char *best = NULL;
    size_t distance = strlen(word) / 3 + 2;
    if (!is_a_word(word)) {
        return err_set(
            err, ERR_USAGE,
            "the first word is no command: 'outbox-relay --help' lists them (it is not shown: it may be "
            "a secret)");
    }
    for (; commands->name; commands++) {
        best = nearer(word, commands->name, best, &distance);
    }
    return best ? err_set(err, ERR_USAGE, "unknown command '%s'; did you mean '%s'?", word, best)
                : err_set(err, ERR_USAGE, "unknown command '%s'; 'outbox-relay --help' lists them", word);
}

static int unknown_flag(const char *word, int letter, struct err *err)
{
    char name[64];
    const char *best = NULL;
    const char *bare = word + strspn(word, "-");
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(bare, "="), bare);
    size_t distance = strlen(name) / 3 + 1;
    if (strncmp(word, "--", 2) != 0 || !is_a_word(name)) {
        return letter > 0 ? err_set(err, ERR_USAGE, "unknown option -%c", letter)
                          : err_set(err, ERR_USAGE, "unknown option, which is not shown: it may be a secret");
    }
    for (int flag = 0; flag < CLI_FLAGS; flag++) {
        best = nearer(name, flags[flag].name, best, &distance);
    }
    return best ? err_set(err, ERR_USAGE, "unknown option --%s; did you mean --%s?", name, best)
                : err_set(err, ERR_USAGE, "unknown option --%s", name);
}

static int add_override(struct cli *cli, const char *key, const char *value, const char *place,
                        struct err *err)
{
    if (cli->override_count == CLI_MAX_OVERRIDES) {
        return err_set(err, ERR_USAGE, "more than %d options", CLI_MAX_OVERRIDES);
    }
    cli->overrides[cli->override_count++] = (struct config_override){key, value, place};
    return 0;
}

static int set_option(struct cli *cli, const char *pair, struct err *err)
{
    const char *equals = strchr(pair, '=');
    if (!equals || equals == pair) {
        return err_set(err, ERR_USAGE,
                       "-o: write KEY=VALUE (what was given is not shown: it may be a secret)");
    }
    if (cli->scratch_count == CLI_MAX_OVERRIDES) {
        return err_set(err, ERR_USAGE, "more than %d options", CLI_MAX_OVERRIDES);
    }
    char *key = strndup(pair, (size_t)(equals - pair));
    if (!key) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    cli->scratch[cli->scratch_count++] = key;
    return add_override(cli, key, equals + 1, "-o", err);
}

static int take(struct cli *cli, enum cli_flag flag, const char *argument, struct err *err)
{
    unsigned allowed = global_flags | (cli->command ? cli->command->flags : 0);
    if (!(allowed & 1u << flag)) {
        return err_set(err, ERR_USAGE, "--%s is not an option of '%s'", flags[flag].name,
                       cli->command ? cli->command->name : "outbox-relay");
    }
    if (flag == CLI_SET) {
        return set_option(cli, argument, err);
    }
    cli->values[flag] = argument ? argument : "";
    return flags[flag].key ? add_override(cli, flags[flag].key, argument, flags[flag].name, err) : 0;
}

static void build_getopt(struct option *longs, char *shorts)
{
    size_t used = 0;
    shorts[used++] = ':';
    for (int flag = 0; flag < CLI_FLAGS; flag++) {
        longs[flag] = (struct option){
            flags[flag].name, flags[flag].argument ? required_argument : no_argument, NULL, code_of(flag)};
        if (flags[flag].letter) {
            shorts[used++] = flags[flag].letter;
        }
        if (flags[flag].letter && flags[flag].argument) {
            shorts[used++] = ':';
        }
    }
    shorts[used] = '\0';
    longs[CLI_FLAGS] = (struct option){0};
}

static int flag_of(int code)
{
    int flag = 0;
    while (code_of(flag) != code) {
        flag++;
    }
    return flag;
}

static int needs_value(int code, struct err *err)
{
    return err_set(err, ERR_USAGE, "--%s needs a value", flags[flag_of(code)].name);
}

static int parse_flags(struct cli *cli, int argc, char **argv, struct err *err)
{
    struct option longs[CLI_FLAGS + 1];
    char shorts[2 * CLI_FLAGS + 2];
    build_getopt(longs, shorts);
    opterr = 0;
    optind = 1;
    for (int letter = 0; (letter = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (letter == ':') {
            return needs_value(optopt, err);
        }
        if (letter == '?') {
            return unknown_flag(argv[optind - 1], optopt, err);
        }
        if (take(cli, (enum cli_flag)flag_of(letter), optarg, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The command may stand behind global options: it is the first word that is neither an option nor an option's
 * value. */
static const char *first_word(int argc, char **argv)
{
    for (int at = 1; at < argc; at++) {
        if (argv[at][0] != '-') {
            return argv[at];
        }
        for (int flag = 0; flag < CLI_FLAGS; flag++) {
            bool long_form =
                strcmp(argv[at] + 1 + (argv[at][1] == '-'), flags[flag].name) == 0 && argv[at][1] == '-';
            bool short_form = argv[at][1] != '\0' && argv[at][1] == flags[flag].letter && argv[at][2] == '\0';
            if (flags[flag].argument && (long_form || short_form)) {
                at++;
                break;
            }
        }
    }
    return NULL;
}

int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_command *commands, struct err *err)
{
    *cli = (struct cli){.argv = argv_take(argc, argv, err)};
    if (!cli->argv) {
        return -1;
    }
    argv = cli->argv;
    const char *word = first_word(argc, argv);
    cli->command = word ? find_command(commands, word) : NULL;
    if (word && !cli->command) {
        return unknown_command(commands, word, err);
    }
    if (parse_flags(cli, argc, argv, err) != 0) {
        return -1;
    }
    bool first = true;
    for (int at = optind; at < argc; at++) {
        if (first && cli->command && strcmp(argv[at], cli->command->name) == 0) {
            first = false;
            continue;
        }
        if (cli->argument_count == CLI_MAX_ARGUMENTS || !cli->command || !cli->command->arguments[0]) {
            return is_a_word(argv[at])
                       ? err_set(err, ERR_USAGE, "'%s' is one word too many", argv[at])
                       : err_set(err, ERR_USAGE, "a word too many, which is not shown: it may be a secret");
        }
        cli->arguments[cli->argument_count++] = argv[at];
    }
    if (!cli->command && !cli_has(cli, CLI_HELP) && !cli_has(cli, CLI_VERSION)) {
        return err_set(err, ERR_USAGE, "which command? 'outbox-relay --help' lists them");
    }
    return 0;
}

void cli_finish(struct cli *cli)
{
    for (size_t at = 0; at < cli->scratch_count; at++) {
        free(cli->scratch[at]);
    }
    argv_free(cli->argv);
    *cli = (struct cli){0};
}

bool cli_has(const struct cli *cli, enum cli_flag flag)
{
    return cli->values[flag] != NULL;
}

static void print_flags(unsigned wanted)
{
    for (int flag = 0; flag < CLI_FLAGS; flag++) {
        if (wanted & 1u << flag) {
            char form[64];
            const char letter[] = {'-', flags[flag].letter, ',', '\0'};
            (void)snprintf(form, sizeof form, "%-3s --%s %s", flags[flag].letter ? letter : "",
                           flags[flag].name, flags[flag].argument ? flags[flag].argument : "");
            output_line(stdout, "  %-30s %s", form, flags[flag].help);
        }
    }
}

void cli_usage(const struct cli_command *commands, const struct cli_command *command)
{
    if (command) {
        output_line(stdout, "outbox-relay %s %s", command->name, command->arguments);
        output_text(stdout, bytes_of("\n"));
        output_line(stdout, "%s.", command->summary);
        output_text(stdout, bytes_of("\n"));
        print_flags(command->flags | global_flags);
        return;
    }
    output_line(stdout,
                "outbox-relay moves messages from a PostgreSQL outbox table to a broker, and loses none.");
    output_text(stdout, bytes_of("\n"));
    for (; commands->name; commands++) {
        output_line(stdout, "  outbox-relay %-8s %-20s %s", commands->name, commands->arguments,
                    commands->summary);
    }
    output_text(stdout, bytes_of("\n"));
    print_flags(global_flags);
}

int cli_count(const struct cli *cli, enum cli_flag flag, int64_t otherwise, int64_t *out, struct err *err)
{
    const char *text = cli->values[flag];
    char *rest = NULL;
    *out = otherwise;
    if (!text) {
        return 0;
    }
    errno = 0;
    *out = strtoll(text, &rest, 10);
    if (*text == '\0' || *rest != '\0' || *out <= 0 || errno != 0) {
        return err_set(err, ERR_USAGE, "--%s: '%s' is not a number above 0", flags[flag].name, text);
    }
    return 0;
}

int cli_duration(const struct cli *cli, enum cli_flag flag, int64_t otherwise_ms, int64_t *out_ms,
                 struct err *err)
{
    *out_ms = otherwise_ms;
    if (!cli_has(cli, flag)) {
        return 0;
    }
    if (option_parse_duration(cli->values[flag], out_ms, err) != 0) {
        err->class = ERR_USAGE;
        return err_prefix(err, "--%s", flags[flag].name);
    }
    return *out_ms <= DURATION_MAX_MS
               ? 0
               : err_set(err, ERR_USAGE, "--%s: longer than ten years", flags[flag].name);
}

bool cli_is_uuid(const char *text)
{
    return strlen(text) == 36 && strspn(text, "0123456789abcdefABCDEF-") == 36 && text[8] == '-' &&
           text[13] == '-' && text[18] == '-' && text[23] == '-';
}

int cli_fail(const struct err *err)
{
    output_line(stderr, "outbox-relay: %s", err->text);
    return err_exit_code(err->class);
}

/* Closed is what a process begins as; only who asks for it at its start opens it: later there are other
 * threads. */
static void unseal(struct config *config)
{
    if (config_number(config, "debuggable") == 1) {
        process_unseal();
        config_warn(config, config_value(config, "debuggable")->place,
                    "debuggable: core files, and debuggers of this user, see secrets and messages");
    } else if (process_withholds_keys()) {
        config_warn(config, "environment", "SSLKEYLOGFILE reaches no library: debuggable: true lets it");
    }
}

static int load(struct cli *cli, struct config *config, enum config_plugins plugins, struct err *err)
{
    return config_load(config, cli->values[CLI_CONFIG], (const char *const *)environ, cli->overrides,
                       cli->override_count, plugins, err);
}

int cli_reload_config(struct cli *cli, struct config *config, const struct log *log)
{
    struct err err = {0};
    int result = load(cli, config, CONFIG_LOADS_PLUGIN, &err);
    for (const char *at = text_get(&config->faults); *at;) {
        char line[1024];
        size_t len = strcspn(at, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)len, at);
        LOG(log, result == 0 ? LOG_WARNING : LOG_ERROR, "configuration", log_text("place", line));
        at += len + (at[len] == '\n');
    }
    if (result != 0) {
        LOG(log, LOG_ERROR, "the configuration has mistakes, the old one stays", log_text("error", err.text));
        config_finish(config);
    }
    return result;
}

int cli_load_config(struct cli *cli, struct config *config, enum config_plugins plugins)
{
    struct err err = {0};
    if (load(cli, config, plugins, &err) == 0) {
        unseal(config);
        output_text(stderr, text_view(&config->faults)); /* warnings */
        return 0;
    }
    output_text(stderr, text_view(&config->faults));
    int code = cli_fail(&err);
    config_finish(config);
    return code;
}
