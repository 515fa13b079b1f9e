/* run - the daemon. Ends 0 when a signal stopped it cleanly, 70 when something had to be let go of. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "command/cli.h"
#include "service/program.h"

enum { TICK_MS = 1000, TRY_BROKER_MS = 2000 };

/*
 * One try before the loop: what only a person can mend should be told at once. A database that is merely away
 * is not worth giving up: the workers keep trying.
 */
static int first_look(struct program *program)
{
    struct err err = {0};
    struct pg *pg = NULL;
    int result = program_connect(program, program->wake.stop_fd, CLOCK_NEVER_MS, &pg, &err);
    if (result == 0) {
        result = program_check_outbox(&program->config, pg, NULL, &err);
    }
    pg_close(pg);
    if (result == 0) {
        return 0;
    }
    if (err.class == ERR_CONFIG || err.class == ERR_REFUSED) {
        return cli_fail(&err);
    }
    LOG(&program->log, LOG_WARNING, "the database is away; trying on", log_text("error", err.text));
    return 0;
}

/* A broker that is merely away is no reason to refuse a configuration; one that says no is. */
static int try_broker(struct backend *backend, const struct log *log, struct err *err)
{
    if (backend_try(backend, clock_now_ms() + TRY_BROKER_MS, err) == 0) {
        return 0;
    }
    if (err->class != ERR_CONNECTION) {
        return -1;
    }
    LOG(log, LOG_WARNING, "the broker of the new configuration cannot be reached",
        log_text("error", err->text));
    err_clear(err);
    return 0;
}

static int try_backend(const struct config *config, const struct log *log, struct err *err)
{
    struct backend *backend = NULL;
    const struct outbox_backend *table = config->backend;
    if (!table) {
        return err_set(err, ERR_CONFIG, "backend is not set");
    }
    int result = backend_open(&backend, table, config_section(config, table->name), "outbox-relay", log, err);
    if (result == 0) {
        result = try_broker(backend, log, err);
        backend_close(backend);
    }
    return result;
}

/* A database that is merely away is no reason to refuse a configuration, unless it is another than before. */
static int try_database(const struct config *config, const struct program *running, struct err *err)
{
    const char *name = config_text(config, "database");
    bool same = strcmp(name, config_text(&running->config, "database")) == 0;
    int result = program_try(config, running->wake.stop_fd, err);
    bool refused = err->class == ERR_CONFIG || err->class == ERR_REFUSED;
    return result == 0 || (same && !refused) ? 0 : -1;
}

/* Can this configuration be run at all? Tried before the running one is given up. */
static bool is_usable(const struct config *config, const struct program *running)
{
    struct err err = {0};
    if (try_backend(config, &running->log, &err) == 0 && try_database(config, running, &err) == 0) {
        return true;
    }
    LOG(&running->log, LOG_ERROR, "the new configuration is not usable, the old one stays",
        log_text("error", err.text));
    return false;
}

/* HUP: true if there is a good new configuration in *fresh. */
static bool reload(struct cli *cli, struct program *program, struct config *fresh)
{
    if (!atomic_exchange(&program->signals.reload, false)) {
        return false;
    }
    if (cli_reload_config(cli, fresh, &program->log) != 0) {
        return false;
    }
    if (!is_usable(fresh, program)) {
        config_finish(fresh);
        return false;
    }
    LOG_PLAIN(&program->log, LOG_INFO, "reloading the configuration");
    return true;
}

/* True when the configuration in *fresh is to be run next. */
static bool supervise(struct cli *cli, struct program *program, struct config *fresh)
{
    while (!wake_is_stopping(&program->wake)) {
        program_tick(program);
        if (reload(cli, program, fresh)) {
            return true;
        }
        wake_sleep(&program->wake, clock_now_ms() + TICK_MS);
    }
    return false;
}

/* One life between start and stop or reload. */
static int live(struct cli *cli, struct config *config, bool *again)
{
    struct program program;
    struct err err = {0};
    *again = false;
    int code = program_init(&program, config, &err) == 0 ? 0 : cli_fail(&err);
    if (code == 0) {
        code = first_look(&program);
    }
    if (code == 0 &&
        (program_open(&program, &err) != 0 || program_start(&program, INT64_MAX / 2, false, &err) != 0)) {
        code = cli_fail(&err);
    }
    if (code != 0) {
        program_stop(&program);
        program_finish(&program);
        return code;
    }
    LOG(&program.log, LOG_INFO, "running", log_text("instance", program.instance),
        log_text("backend", backend_name(program.backend)),
        log_number("workers", config_number(&program.config, "workers")));
    *again = supervise(cli, &program, config);
    LOG_PLAIN(&program.log, LOG_INFO, "stopping: finishing the batches in flight");
    bool clean = program_stop(&program);
    LOG(&program.log, clean ? LOG_INFO : LOG_WARNING,
        clean ? "stopped" : "stopped by force; what was in flight stays in the outbox",
        log_number("published", (int64_t)metrics_get(&pool_shared(program.pool)->metrics.published)));
    if (!clean) {
        _exit(err_exit_code(ERR_INTERNAL));
    }
    program_finish(&program);
    if (*again && atomic_load(&program.signals.terminate)) {
        config_finish(config);
        *again = false;
    }
    return 0;
}

int cmd_run(struct cli *cli)
{
    struct config config;
    int code = cli_load_config(cli, &config, CONFIG_LOADS_PLUGIN);
    bool again = code == 0;
    while (again) {
        code = live(cli, &config, &again);
    }
    return code;
}
