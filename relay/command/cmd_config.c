/* config - show: the effective values with their origin; init: a sample file; schema: JSON Schema for
 * editors. */
#include <stdio.h>
#include <string.h>

#include "base/output.h"
#include "command/cli.h"
#include "config/config_print.h"

enum { PRINT_MAX_BYTES = 1 << 20 };

static const struct {
    const char *word;
    void (*print)(const struct config *config, struct text *out);
} words[] = {
    {"show", config_print_values},
    {"init", config_print_sample},
    {"schema", config_print_schema},
};

int cmd_config(struct cli *cli)
{
    struct config config;
    size_t word = 0;
    size_t count = sizeof words / sizeof words[0];
    while (word < count && (cli->argument_count != 1 || strcmp(cli->arguments[0], words[word].word) != 0)) {
        word++;
    }
    if (word == count) {
        struct err err = {0};
        (void)err_set(&err, ERR_USAGE, "write 'outbox-relay config show', 'config init' or 'config schema'");
        return cli_fail(&err);
    }
    int code = cli_load_config(cli, &config, CONFIG_LOADS_PLUGIN);
    if (code != 0) {
        return code;
    }
    struct text out;
    text_init(&out, PRINT_MAX_BYTES);
    words[word].print(&config, &out);
    output_text(stdout, text_view(&out));
    text_finish(&out);
    config_finish(&config);
    return 0;
}
