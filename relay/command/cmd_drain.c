/*
 * drain - publishes what is due now, then exits: 0 nothing is left, 1 something was dead-lettered, waits or
 * is held, 69 database or broker unavailable, 75 stopped by a limit or signal or another process holds the
 * rest, 77, 78.
 */
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "command/cli.h"
#include "command/drain.h"

enum { PROGRESS_EVERY_MS = 10000 };

static void supervise(struct drain *drain)
{
    struct wake *wake = &drain->program->wake;
    while (!drain->over) {
        uint64_t seen = wake_changes(wake);
        program_tick(drain->program);
        drain_show_progress(drain);
        drain_judge(drain);
        if (!drain->over) {
            wake_wait(wake, seen, clock_now_ms() + DRAIN_TICK_MS / 10);
        }
    }
}

static int read_limits(const struct cli *cli, struct drain *drain, struct err *err)
{
    int64_t max_time_ms = 0;
    if (cli_duration(cli, CLI_MAX_TIME, CLOCK_NEVER_MS, &max_time_ms, err) != 0) {
        return -1;
    }
    drain->until_ms = clock_after(clock_now_ms(), max_time_ms);
    return cli_count(cli, CLI_MAX_MESSAGES, 0, &drain->max_messages, err);
}

static int start(struct drain *drain, struct err *err)
{
    int64_t budget = drain->max_messages > 0 ? drain->max_messages : INT64_MAX / 2;
    return program_start(drain->program, budget, true, err);
}

static bool is_ready(struct drain *drain, struct err *err)
{
    bool ready = program_open(drain->program, err) == 0 && drain_prepare(drain, err) == 0;
    drain->progress_ms = clock_now_ms();
    return ready;
}

static void run(struct drain *drain, struct err *err)
{
    struct program *program = drain->program;
    bool something = is_ready(drain, err) && (drain_claimable(drain) > 0 || drain_is_patient(drain));
    if (something && start(drain, err) == 0) {
        supervise(drain);
    } else if (err_is_set(err)) {
        if (!drain_ends_by_request(drain)) {
            drain_end(drain, err_exit_code(err->class), err->text);
        }
    } else if (drain->left.messages + drain->left.due > 0) {
        drain_end(drain, 1, DRAIN_ON_HOLD);
    } else {
        drain_end(drain, 0, "nothing was due");
    }
    if (!program_stop(program)) {
        drain->forced = true;
        drain_end(drain, err_exit_code(ERR_INTERNAL),
                  "stopped by force; what was in flight stays in the outbox");
    } else {
        drain_judge_outcome(drain);
    }
}

int cmd_drain(struct cli *cli)
{
    struct config config;
    struct program program;
    struct err err = {0};
    struct drain drain = {.program = &program,
                          .began_ms = clock_now_ms(),
                          .show_progress = !cli_has(cli, CLI_QUIET),
                          .progress_at_ms = isatty(STDERR_FILENO) ? 0 : clock_now_ms() + PROGRESS_EVERY_MS};
    if (read_limits(cli, &drain, &err) != 0) {
        return cli_fail(&err);
    }
    int code = cli_load_config(cli, &config, CONFIG_LOADS_PLUGIN);
    if (code != 0) {
        return code;
    }
    code = program_init(&program, &config, &err) == 0 ? 0 : cli_fail(&err);
    if (code == 0) {
        text_init(&drain.resting, DRAIN_RESTING_MAX_BYTES);
        drain.unavailable_after_ms = config_number(&program.config, "drain.unavailable_after");
        drain.patience_ms = config_number(&program.config, "drain.patience");
        run(&drain, &err);
        code = drain.code;
        if (drain_tell(&drain, cli_has(cli, CLI_JSON), &err) != 0) {
            int failed = cli_fail(&err);
            code = code != 0 ? code : failed;
        }
    }
    if (drain.forced) {
        (void)fflush(stdout);
        _exit(code);
    }
    pg_close(drain.pg);
    text_finish(&drain.resting);
    program_finish(&program);
    return code;
}
