/* check - is the configuration good? With --connect also: database, schema, privileges, broker. */
#include <stdio.h>

#include "base/clock.h"
#include "base/output.h"
#include "command/cli.h"
#include "plugin/backend.h"
#include "service/program.h"
#include "store/inspect.h"
#include "store/schema.h"

static void warn(void *context, const char *hazard)
{
    const char *part = context;
    output_line(stdout, "%s: warning: %s", part, hazard);
}

static void tell_members(void *context, const char *sentence)
{
    (void)context;
    output_line(stdout, "roles: %s", sentence);
}

static int check_database(struct program *program, struct err *err)
{
    struct pg *pg = NULL;
    if (program_connect(program, program->wake.stop_fd, CLOCK_NEVER_MS, &pg, err) != 0) {
        return -1;
    }
    int result = program_check_outbox(&program->config, pg, NULL, err);
    if (result == 0) {
        result = inspect_transaction(pg, err);
    }
    if (result == 0) {
        result = inspect_foreign_objects(pg, warn, "schema", err);
    }
    if (result == 0) {
        result = inspect_role_members(pg, tell_members, NULL, err);
    }
    if (result == 0 && program_is_ordered(program)) {
        result = inspect_order_hazards(pg, warn, "order", err);
    }
    pg_close(pg);
    return result;
}

static int check_broker(struct program *program, struct err *err)
{
    return backend_try(program->backend, clock_now_ms() + config_number(&program->config, "publish_timeout"),
                       err);
}

static int report(const char *what, int result, struct err *err, int code)
{
    if (result == 0) {
        output_line(stdout, "%s: ok", what);
        return code;
    }
    output_line(stdout, "%s: %s", what, err->text);
    int own = err_exit_code(err->class);
    err_clear(err);
    return own > code ? own : code; /* 78 before 77 before 69, as everywhere */
}

int cmd_check(struct cli *cli)
{
    struct config config;
    struct program program;
    struct err err = {0};
    int code = cli_load_config(cli, &config, CONFIG_LOADS_PLUGIN);
    if (code != 0) {
        return code;
    }
    code = program_init(&program, &config, &err) == 0 ? 0 : cli_fail(&err);
    if (code == 0) {
        code = report("configuration", program_open(&program, &err), &err, code);
    }
    if (code == 0 && cli_has(cli, CLI_CONNECT)) {
        code = report("database", check_database(&program, &err), &err, code);
        code = report("broker", check_broker(&program, &err), &err, code);
    }
    program_finish(&program);
    return code;
}
