/* cli - the command line: one table of commands, one table of options, from which usage and errors come, too.
 */
#ifndef RELAY_CLI_H
#define RELAY_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "config/config.h"

enum { CLI_MAX_OVERRIDES = 64, CLI_MAX_ARGUMENTS = 16 };

enum cli_flag {
    CLI_CONFIG,
    CLI_DATABASE,
    CLI_BACKEND,
    CLI_INSTANCE,
    CLI_SET,
    CLI_LOG_LEVEL,
    CLI_LOG_FORMAT,
    CLI_HELP,
    CLI_VERSION,
    CLI_DRY_RUN,
    CLI_JSON,
    CLI_CONNECT,
    CLI_MAX_TIME,
    CLI_MAX_MESSAGES,
    CLI_QUIET,
    CLI_PROXY,
    CLI_REFUSING,
    CLI_ONLY,
    CLI_LIST,
    CLI_ORDER,
    CLI_LANES,
    CLI_REASON,
    CLI_CHANNEL,
    CLI_SINCE,
    CLI_LIMIT,
    CLI_RATE,
    CLI_YES,
    CLI_FOR,
    CLI_WAIT,
    CLI_ID,
    CLI_ALL,
    CLI_FLAGS
};

struct cli {
    char **argv;                       /* a copy; in the process's own, secrets are overwritten */
    const struct cli_command *command; /* NULL with --help and --version alone */
    const char *values[CLI_FLAGS];     /* NULL = not given; "" for flags without argument */
    struct config_override overrides[CLI_MAX_OVERRIDES];
    size_t override_count;
    const char *arguments[CLI_MAX_ARGUMENTS]; /* behind the command */
    size_t argument_count;
    char *scratch[CLI_MAX_OVERRIDES]; /* keys cut out of -o KEY=VALUE */
    size_t scratch_count;
};

struct cli_command {
    const char *name;
    const char *arguments; /* for the usage line */
    const char *summary;
    unsigned flags;              /* bits of enum cli_flag beyond the global ones */
    int (*run)(struct cli *cli); /* the exit code */
};

/* ERR_USAGE names the mistake. cli must be finished either way. */
int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_command *commands,
              struct err *err) MUST_CHECK;
void cli_finish(struct cli *cli);

/* Usage of one command, or of all (NULL), on standard output. */
void cli_usage(const struct cli_command *commands, const struct cli_command *command);

bool cli_has(const struct cli *cli, enum cli_flag flag);

/* A count above 0; `otherwise` where the flag is not given. ERR_USAGE names the flag. */
int cli_count(const struct cli *cli, enum cli_flag flag, int64_t otherwise, int64_t *out,
              struct err *err) MUST_CHECK;

/* A duration in ms above 0, likewise. */
int cli_duration(const struct cli *cli, enum cli_flag flag, int64_t otherwise_ms, int64_t *out_ms,
                 struct err *err) MUST_CHECK;

/* 8-4-4-4-12 hexadecimal digits? */
bool cli_is_uuid(const char *text);

/* Prints "outbox-relay: text" on standard error; the exit code of the error's class. */
int cli_fail(const struct err *err);

/* The same for a process that runs on: mistakes go to the log, each an event. 0 or -1. */
int cli_reload_config(struct cli *cli, struct config *config, const struct log *log) MUST_CHECK;

/* Loads the configuration; on mistakes prints all of them. 0, or the exit code. */
int cli_load_config(struct cli *cli, struct config *config, enum config_plugins plugins);

/* The commands, one file each. */
int cmd_run(struct cli *cli);
int cmd_drain(struct cli *cli);
int cmd_migrate(struct cli *cli);
int cmd_status(struct cli *cli);
int cmd_check(struct cli *cli);
int cmd_config(struct cli *cli);
int cmd_version(struct cli *cli);
int cmd_backends(struct cli *cli);
int cmd_dead(struct cli *cli);
int cmd_pause(struct cli *cli);
int cmd_resume(struct cli *cli);
int cmd_explain(struct cli *cli);

#endif
