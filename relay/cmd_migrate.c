/* migrate - installs or upgrades schema outbox. */
#include <stdio.h>

#include "cli.h"
#include "clock.h"
#include "pg.h"
#include "schema.h"

enum { CONNECT_MS = 30000, SQL_MAX_BYTES = 4 << 20 };

/* Without a database that can be asked, everything. */
static void print_sql(const char *conninfo)
{
    const struct pg_options options = {conninfo, "outbox-relay migrate", -1};
    struct err err = {0};
    struct pg *pg = NULL;
    struct text sql;
    int installed = 0;
    text_init(&sql, SQL_MAX_BYTES);
    if (pg_open(&pg, &options, clock_now_ms() + CONNECT_MS, &err) != 0 ||
        schema_installed(pg, &installed, &err) != 0) {
        (void)printf("-- The database could not be asked (%s): this is a whole installation.\n", err.text);
    } else {
        (void)printf("-- Version %d is installed, %d is the newest.\n", installed, schema_newest());
    }
    schema_print(&sql, installed);
    (void)fputs(text_get(&sql), stdout);
    text_finish(&sql);
    pg_close(pg);
}

static void tell(const struct schema_report *report)
{
    if (report->before == report->after) {
        (void)printf("schema outbox is up to date (version %d)\n", report->after);
    } else {
        (void)printf("schema outbox migrated from version %d to %d\n", report->before, report->after);
    }
    if (!report->roles_exist) {
        struct text sql;
        text_init(&sql, SQL_MAX_BYTES);
        schema_roles(&sql);
        (void)printf("-- This user may not create roles. Let somebody who may run the following, in this "
                     "database:\n%s",
                     text_get(&sql));
        text_finish(&sql);
    }
}

int cmd_migrate(struct cli *cli)
{
    struct config config;
    struct err err = {0};
    struct pg *pg = NULL;
    struct schema_report report;
    int code = cli_load_config(cli, &config, CONFIG_NO_PLUGIN);
    if (code != 0) {
        return code;
    }
    const struct pg_options options = {config_text(&config, "database"), "outbox-relay migrate", -1};
    if (cli_has(cli, CLI_DRY_RUN)) {
        print_sql(options.conninfo);
    } else if (pg_open(&pg, &options, clock_now_ms() + CONNECT_MS, &err) != 0 ||
               schema_migrate(pg, &report, &err) != 0) {
        code = cli_fail(&err);
    } else {
        tell(&report);
    }
    pg_close(pg);
    config_finish(&config);
    return code;
}
