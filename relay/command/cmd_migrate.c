/* migrate - installs or upgrades schema outbox, and sets the order of delivery. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/output.h"
#include "command/cli.h"
#include "postgres/pg.h"
#include "store/inspect.h"
#include "store/limits.h"
#include "store/schema.h"

enum { CONNECT_MS = 30000, SQL_MAX_BYTES = 4 << 20 };

/* What is installed; 0 where the database cannot be asked. A schema that is somebody else's is an error. */
static int ask_installed(const char *conninfo, int *installed, struct err *err)
{
    const struct pg_options options = {conninfo, "outbox-relay migrate", -1};
    struct pg *pg = NULL;
    *installed = 0;
    int result = limits_open(&pg, &options, NULL, clock_now_ms() + CONNECT_MS, err);
    if (result == 0) {
        result = schema_check_owner(pg, err) == 0 ? schema_installed(pg, installed, err) : -1;
    }
    bool strangers = result != 0 && pg && err->class == ERR_CONFIG;
    pg_close(pg);
    if (strangers) {
        return -1;
    }
    if (result != 0) {
        /* A line feed in it would end the comment, and what follows would be SQL. */
        output_line(stdout, "-- The database could not be asked (%s): this is a whole installation.",
                    err->text);
        err_clear(err);
    } else {
        output_line(stdout, "-- Version %d is installed, %d is the newest.", *installed, schema_newest());
    }
    return 0;
}

static int print_sql(const char *conninfo, const struct schema_order *order, struct err *err)
{
    struct text sql;
    int installed = 0;
    if (ask_installed(conninfo, &installed, err) != 0) {
        return -1;
    }
    text_init(&sql, SQL_MAX_BYTES);
    schema_print(&sql, installed);
    if (order) {
        text_add(&sql, "\nBEGIN;\n");
        schema_print_order(&sql, order);
        text_add(&sql, "COMMIT;\n");
    }
    output_text(stdout, text_view(&sql));
    text_finish(&sql);
    return 0;
}

static void tell(const struct schema_report *report)
{
    if (report->before == report->after) {
        output_line(stdout, "schema outbox is up to date (version %d)", report->after);
    } else {
        output_line(stdout, "schema outbox migrated from version %d to %d", report->before, report->after);
    }
    if (!report->roles_exist) {
        struct text sql;
        text_init(&sql, SQL_MAX_BYTES);
        schema_roles(&sql);
        output_line(stdout, "-- This user may not create roles. Let somebody who may run the following, in "
                            "this database:");
        output_text(stdout, text_view(&sql));
        text_finish(&sql);
    }
}

/* --order and --lanes; *wanted is false where neither is given. */
static int read_order(const struct cli *cli, struct schema_order *order, bool *wanted, struct err *err)
{
    const char *word = cli->values[CLI_ORDER];
    *wanted = word != NULL;
    if (cli_has(cli, CLI_LANES) && (!word || strcmp(word, "key") != 0)) {
        return err_set(err, ERR_USAGE, "--lanes goes with --order key");
    }
    if (word && strcmp(word, "key") != 0 && strcmp(word, "none") != 0) {
        return err_set(err, ERR_USAGE, "--order: '%s' is neither none nor key", word);
    }
    order->by_key = word && strcmp(word, "key") == 0;
    order->lanes = 0;
    if (order->by_key && cli_count(cli, CLI_LANES, SCHEMA_DEFAULT_LANES, &order->lanes, err) != 0) {
        return -1;
    }
    return schema_check_lanes(order, err);
}

static void tell_holder(const char *holder)
{
    output_line(stderr, "outbox-relay: waits for the lock of migrate, held by %s", holder);
}

static int set_order(struct pg *pg, const struct schema_order *order, struct err *err)
{
    bool changed = false;
    if (schema_set_order(pg, order, tell_holder, &changed, err) != 0) {
        return -1;
    }
    const char *change =
        changed ? "; relays that run with another setting stop claiming: restart them" : ", as before";
    if (order->by_key) {
        output_line(stdout, "order: key, %lld lanes%s", (long long)order->lanes, change);
    } else {
        output_line(stdout, "order: none%s", change);
    }
    return 0;
}

/* Roles are the server's, and may have been there, with members, before this outbox was. */
static void tell_members(void *context, const char *sentence)
{
    (void)context;
    output_line(stderr, "outbox-relay: %s", sentence);
}

static int migrate(const char *conninfo, const struct schema_order *order, struct err *err)
{
    const struct pg_options options = {conninfo, "outbox-relay migrate", -1};
    struct schema_report report;
    struct pg *pg = NULL;
    int result = limits_open(&pg, &options, NULL, clock_now_ms() + CONNECT_MS, err);
    if (result == 0) {
        result = schema_migrate(pg, tell_holder, &report, err);
    }
    if (result == 0) {
        tell(&report);
        result = report.before < report.after && report.roles_exist
                     ? inspect_role_members(pg, tell_members, NULL, err)
                     : 0;
    }
    if (result == 0) {
        result = order ? set_order(pg, order, err) : 0;
    }
    pg_close(pg);
    return result;
}

int cmd_migrate(struct cli *cli)
{
    struct config config;
    struct schema_order order = {0};
    struct err err = {0};
    bool with_order = false;
    if (read_order(cli, &order, &with_order, &err) != 0) {
        return cli_fail(&err);
    }
    int code = cli_load_config(cli, &config, CONFIG_NO_PLUGIN);
    if (code != 0) {
        return code;
    }
    const char *conninfo = config_text(&config, "database");
    int (*work)(const char *, const struct schema_order *, struct err *) =
        cli_has(cli, CLI_DRY_RUN) ? print_sql : migrate;
    if (work(conninfo, with_order ? &order : NULL, &err) != 0) {
        code = cli_fail(&err);
    }
    config_finish(&config);
    return code;
}
