/* outbox-relay: the table of commands. */
#include <stdio.h>

#include "base/secrets.h"
#include "command/cli.h"
#include "plugin/loader.h"
#include "service/process.h"

#define BIT(flag) (1u << (flag))

static const struct cli_command commands[] = {
    {"run", "", "The daemon: publish messages until a signal stops it", 0, cmd_run},
    {"drain", "", "Publish what is due now, then exit",
     BIT(CLI_JSON) | BIT(CLI_MAX_TIME) | BIT(CLI_MAX_MESSAGES) | BIT(CLI_QUIET), cmd_drain},
    {"migrate", "", "Install or upgrade schema outbox; set the order of delivery",
     BIT(CLI_DRY_RUN) | BIT(CLI_ORDER) | BIT(CLI_LANES), cmd_migrate},
    {"status", "", "What waits, since when, and who carries it", BIT(CLI_JSON), cmd_status},
    {"dead", "list|show|retry|discard|export [ID...]", "The dead letters: look, send again, throw away",
     BIT(CLI_REASON) | BIT(CLI_CHANNEL) | BIT(CLI_SINCE) | BIT(CLI_LIMIT) | BIT(CLI_RATE) | BIT(CLI_DRY_RUN) |
         BIT(CLI_YES) | BIT(CLI_JSON) | BIT(CLI_ALL),
     cmd_dead},
    {"pause", "[CHANNEL]", "Claim nothing of a channel, or of all, until it is resumed",
     BIT(CLI_FOR) | BIT(CLI_WAIT) | BIT(CLI_REASON), cmd_pause},
    {"resume", "[CHANNEL]", "End a pause", 0, cmd_resume},
    {"explain", "", "What would be sent of one message, and where to; sends nothing",
     BIT(CLI_ID) | BIT(CLI_JSON), cmd_explain},
    {"check", "", "Check the configuration", BIT(CLI_CONNECT), cmd_check},
    {"config", "show|init|schema", "Effective values and where each comes from; a sample file; JSON Schema",
     0, cmd_config},
    {"backends", "list|show NAME|test PATH|new NAME",
     "What backends there are; try one; begin one of your own",
     BIT(CLI_JSON) | BIT(CLI_PROXY) | BIT(CLI_REFUSING) | BIT(CLI_ONLY) | BIT(CLI_LIST), cmd_backends},
    {"version", "", "Print the version of the program and its libraries", BIT(CLI_JSON), cmd_version},
    {NULL, NULL, NULL, 0, NULL},
};

int main(int argc, char **argv)
{
    struct cli cli = {0};
    struct err err = {0};
    int code = 0;
    if (process_seal(&err) != 0 || loader_guard_exit(&err) != 0 ||
        cli_parse(&cli, argc, argv, commands, &err) != 0) {
        code = cli_fail(&err);
    } else if (cli_has(&cli, CLI_HELP)) {
        cli_usage(commands, cli.command);
    } else if (cli_has(&cli, CLI_VERSION)) {
        code = cmd_version(&cli);
    } else {
        code = cli.command->run(&cli);
    }
    cli_finish(&cli);
    secrets_clear();
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
        code = 70; /* the result did not reach whoever asked for it */
    }
    loader_bound_exit(code);
    return code;
}
