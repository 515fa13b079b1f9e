/* check - is the configuration good? With --connect also: database, schema, privileges, broker. */
#include <stdio.h>

#include "base/clock.h"
#include "command/cli.h"
#include "plugin/backend.h"
#include "service/program.h"
#include "store/inspect.h"
#include "store/schema.h"
#include "store/sql.h"

enum { ANSWER_MS = 10000 };

static int check_privileges(struct pg *pg, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql_privileges, 0, NULL, &rows, clock_now_ms() + ANSWER_MS, err) != 0) {
        return -1;
    }
    int result = 0;
    if (pg_rows_count(rows) > 0) {
        result = err_set(err, ERR_REFUSED,
                         "user %s lacks %s on %s: GRANT outbox_relay TO the user, as the schema's owner",
                         pg_text(rows, 0, 0), pg_text(rows, 0, 1), pg_text(rows, 0, 2));
    }
    pg_rows_free(rows);
    return result;
}

/* What the operator should know, and no reason to refuse. */
static int warn_of_hazards(struct pg *pg, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (pg_query(pg, sql_order_hazards, 0, NULL, &rows, clock_now_ms() + ANSWER_MS, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < pg_rows_count(rows); at++) {
        (void)printf("order: warning: %s\n", pg_text(rows, at, 0));
    }
    pg_rows_free(rows);
    return 0;
}

static int check_database(struct program *program, struct err *err)
{
    struct pg *pg = NULL;
    if (program_connect(program, &pg, err) != 0) {
        return -1;
    }
    int result = check_privileges(pg, err);
    if (result == 0) {
        result = program_check_order(program, pg, err);
    }
    if (result == 0 && program_is_ordered(program)) {
        result = warn_of_hazards(pg, err);
    }
    pg_close(pg);
    return result;
}

static int check_broker(struct program *program, struct err *err)
{
    const char *name = program->config.backend->name;
    struct session *session = NULL;
    if (backend_session_new(&session, program->backend, err) != 0) {
        return -1;
    }
    int64_t deadline_ms = clock_now_ms() + config_number(&program->config, "publish_timeout");
    int result = backend_connect(session, deadline_ms, err);
    backend_session_free(session);
    return result == 0 ? 0 : err_prefix(err, "backend %s", name);
}

static int report(const char *what, int result, struct err *err, int code)
{
    if (result == 0) {
        (void)printf("%s: ok\n", what);
        return code;
    }
    (void)printf("%s: %s\n", what, err->text);
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
    code = program_init(&program, &config);
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
