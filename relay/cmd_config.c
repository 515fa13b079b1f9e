/* config show - the effective values with their origin, secrets redacted. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

enum { SHOW_MAX_BYTES = 1 << 20 };

int cmd_config(struct cli *cli)
{
    struct config config;
    if (cli->argument_count != 1 || strcmp(cli->arguments[0], "show") != 0) {
        struct err err = {0};
        (void)err_set(&err, ERR_USAGE, "write 'outbox-relay config show'");
        return cli_fail(&err);
    }
    int code = cli_load_config(cli, &config);
    if (code != 0) {
        return code;
    }
    struct text out;
    text_init(&out, SHOW_MAX_BYTES);
    config_show(&config, &out);
    (void)fputs(text_get(&out), stdout);
    text_finish(&out);
    config_finish(&config);
    return 0;
}
