/*
 * drain - publishes what is due now, then exits: 0 nothing is left, 1 something was dead-lettered, waits or
 * is held, 69 database or broker unavailable, 75 stopped by a limit or signal or another process holds the
 * rest, 77, 78.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "command/cli.h"
#include "service/program.h"
#include "store/inspect.h"

enum {
    TICK_MS = 1000,
    LOOK_MS = 30000,
    LAST_LOOK_MS = 2000,
    LOOK_REST = 9, /* a look at what is left is followed by so many times its own length without one */
    OTHERS_HOLD_AFTER_MS = 1000,
    PROGRESS_EVERY_MS = 10000,
    RETRY_CONNECT_MS = 1000,
    RESTING_BYTES = 256 << 10
};

static const char ON_HOLD[] = "what is left is on hold, is paused, or waits behind a retry of its key";

struct drain {
    struct program *program;
    struct pg *pg;
    struct inspect_target target;
    struct inspect_left left;
    struct text resting;
    int64_t began_ms;
    int64_t until_ms; /* --max-time */
    int64_t unavailable_after_ms;
    int64_t max_messages;
    int64_t progress_at_ms;
    int64_t look_again_ms;
    int64_t blind_since_ms; /* looks have failed since then; 0 = the last one did not */
    unsigned looked_after;  /* empty claims at the last look */
    int64_t total;
    int64_t unclaimable_since_ms; /* rows are left, and nobody here can claim them; 0 = no */
    int64_t unclaimable;
    unsigned unclaimable_after; /* empty claims when that began: somebody must have tried since */
    bool looked;                /* the figures of what is left are known */
    bool show_progress;
    bool over;
    bool forced; /* a thread had to be let go of: nothing can be freed */
    int code;
    char result[700];
};

static void end(struct drain *drain, int code, const char *result)
{
    drain->over = true;
    drain->code = code;
    (void)snprintf(drain->result, sizeof drain->result, "%s", result);
}

/* ---- the database as the supervisor sees it ---- */

/* When a question to the database has to be answered. */
static int64_t answer_by(const struct drain *drain)
{
    int64_t latest_ms = clock_now_ms() + LOOK_MS;
    return latest_ms < drain->until_ms ? latest_ms : drain->until_ms;
}

static void disconnect(struct drain *drain)
{
    pg_close(drain->pg);
    drain->pg = NULL;
}

/* What is left; cancel_fd ends the wait for it. */
static int look(struct drain *drain, int cancel_fd, int64_t deadline_ms, struct err *err)
{
    struct program *program = drain->program;
    text_clear(&drain->resting);
    text_add(&drain->resting, "{}");
    if (program->pool) {
        (void)channels_resting(pool_shared(program->pool)->channels, clock_now_ms(), &drain->resting);
    }
    const struct inspect_filter filter = {program->include.len > 0 ? text_get(&program->include) : NULL,
                                          program->exclude.len > 0 ? text_get(&program->exclude) : NULL,
                                          text_get(&drain->resting), program_is_ordered(program)};
    if (!drain->pg && program_connect(program, cancel_fd, &drain->pg, err) != 0) {
        return -1;
    }
    pg_cancel_on(drain->pg, cancel_fd);
    if (inspect_drain_left(drain->pg, &drain->target, &filter, &drain->left, deadline_ms, err) != 0) {
        disconnect(drain);
        return -1;
    }
    drain->looked = true;
    return 0;
}

/* Where to aim, and how much that is. */
static int aim(struct drain *drain, struct err *err)
{
    struct program *program = drain->program;
    int stop_fd = program->wake.stop_fd;
    int64_t promoted = 0;
    if ((!drain->pg && program_connect(program, stop_fd, &drain->pg, err) != 0) ||
        program_check_order(program, drain->pg, err) != 0 ||
        inspect_promote_all(drain->pg, &promoted, answer_by(drain), err) != 0 ||
        inspect_drain_target(drain->pg, &drain->target, answer_by(drain), err) != 0) {
        disconnect(drain);
        return -1;
    }
    return look(drain, stop_fd, answer_by(drain), err);
}

/* Is this a fault that may be over at the next attempt? */
static bool may_pass(const struct err *err)
{
    return err->class == ERR_CONNECTION || err->class == ERR_RETRY;
}

/* Aims, again and again while the database is merely away or busy. */
static int prepare(struct drain *drain, struct err *err)
{
    struct program *program = drain->program;
    int64_t give_up_ms = clock_now_ms() + drain->unavailable_after_ms;
    bool told = false;
    while (aim(drain, err) != 0) {
        int64_t next_ms = clock_now_ms() + RETRY_CONNECT_MS;
        if (!may_pass(err) || wake_is_stopping(&program->wake) || next_ms >= give_up_ms) {
            return -1;
        }
        if (!told) {
            LOG(&program->log, LOG_WARNING, "the database is away or busy; trying on",
                log_text("error", err->text), log_number("for_s", (give_up_ms - clock_now_ms()) / 1000));
            told = true;
        }
        if (next_ms >= drain->until_ms) {
            wake_sleep(&program->wake, drain->until_ms);
            return -1;
        }
        err_clear(err);
        wake_sleep(&program->wake, next_ms);
    }
    drain->total = drain->left.messages + drain->left.due;
    return 0;
}

/* ---- when it is over ---- */

static int64_t claimable(const struct drain *drain)
{
    return drain->left.messages + drain->left.due - drain->left.resting;
}

static void judge_health(struct drain *drain)
{
    struct shared *shared = pool_shared(drain->program->pool);
    static const char *const names[HEALTH_PARTS] = {"database", "broker"};
    for (int part = 0; part < HEALTH_PARTS && !drain->over; part++) {
        struct health_view view;
        health_look(&shared->health, (enum health_part)part, clock_now_ms(), &view);
        bool hopeless = view.last.class == ERR_CONFIG || view.last.class == ERR_REFUSED ||
                        view.last.class == ERR_INTERNAL;
        if (view.failing_for_ms > 0 && (hopeless || view.failing_for_ms > drain->unavailable_after_ms)) {
            char text[700];
            (void)snprintf(text, sizeof text, "%s unavailable: %s", names[part], view.last.text);
            end(drain, err_exit_code(view.last.class), text);
        }
    }
}

/* Nothing here is broken, and yet nobody here can claim what is left: somebody else has locked it. */
static void judge_unclaimable(struct drain *drain)
{
    struct shared *shared = pool_shared(drain->program->pool);
    struct breaker_view breaker;
    breaker_look(&shared->breaker, clock_now_ms(), &breaker);
    bool healthy = breaker.state == BREAKER_CLOSED;
    for (int part = 0; part < HEALTH_PARTS; part++) {
        struct health_view view;
        health_look(&shared->health, (enum health_part)part, clock_now_ms(), &view);
        healthy = healthy && view.failing_for_ms == 0;
    }
    bool idle = healthy && atomic_load(&shared->working) == 0;
    unsigned empty_claims = atomic_load(&shared->empty_claims);
    if (!idle || drain->unclaimable_since_ms == 0 || drain->unclaimable != claimable(drain)) {
        drain->unclaimable_since_ms = idle ? clock_now_ms() : 0;
        drain->unclaimable = claimable(drain);
        drain->unclaimable_after = empty_claims;
    } else if (clock_now_ms() - drain->unclaimable_since_ms > OTHERS_HOLD_AFTER_MS &&
               clock_now_ms() - atomic_load(&shared->last_claim_ms) > OTHERS_HOLD_AFTER_MS &&
               empty_claims - drain->unclaimable_after > 1) {
        end(drain, 75, "another process holds the rest");
    }
}

/*
 * The workers notice a database that is away, and judge_health() how long. What is wrong with the question
 * alone nobody else notices: it ends a drain that has nothing else to do, at once or when it lasts.
 */
static void judge_failed_look(struct drain *drain, const struct err *err, bool working)
{
    int64_t now_ms = clock_now_ms();
    if (err->class == ERR_STOPPED) {
        return;
    }
    if (err->class != ERR_CONNECTION) {
        LOG(&drain->program->log, LOG_WARNING, "cannot tell what is left", log_text("error", err->text));
    }
    drain->blind_since_ms = drain->blind_since_ms > 0 ? drain->blind_since_ms : now_ms;
    bool lasts = now_ms - drain->blind_since_ms > drain->unavailable_after_ms;
    if (!working && (lasts || !may_pass(err))) {
        end(drain, err_exit_code(err->class), err->text);
    }
}

static void judge_left(struct drain *drain)
{
    struct shared *shared = pool_shared(drain->program->pool);
    struct err err = {0};
    unsigned empty_claims = atomic_load(&shared->empty_claims);
    bool working = atomic_load(&shared->working) > 0;
    bool news = !working && empty_claims != drain->looked_after;
    int64_t began_ms = clock_now_ms();
    if (drain->over || (!news && began_ms < drain->look_again_ms)) {
        return;
    }
    drain->looked_after = empty_claims;
    bool failed = look(drain, drain->program->wake.stop_fd, answer_by(drain), &err) != 0;
    int64_t rest_ms = LOOK_REST * (clock_now_ms() - began_ms);
    drain->look_again_ms = clock_after(clock_now_ms(), rest_ms > TICK_MS ? rest_ms : TICK_MS);
    drain->blind_since_ms = failed ? drain->blind_since_ms : 0;
    if (failed) {
        judge_failed_look(drain, &err, working);
    } else if (drain->left.messages == 0 && drain->left.due == 0) {
        end(drain, 0, "nothing is left"); /* what workers have in hand still counts; newer rows do not */
    } else if (claimable(drain) == 0 && !working) {
        end(drain, 1, ON_HOLD);
    } else if (!working) {
        judge_unclaimable(drain);
    }
}

/* By a signal, or because its time is over. */
static bool ends_by_request(struct drain *drain)
{
    if (atomic_load(&drain->program->signals.terminate)) {
        end(drain, 75, "stopped by a signal");
        return true;
    }
    if (clock_now_ms() >= drain->until_ms) {
        end(drain, 75, "stopped by --max-time");
        return true;
    }
    return false;
}

static void judge_limits(struct drain *drain)
{
    struct shared *shared = pool_shared(drain->program->pool);
    int64_t settled =
        (int64_t)(metrics_get(&shared->metrics.published) + metrics_get(&shared->metrics.dead_lettered));
    if (metrics_get(&shared->metrics.kept) > 0) {
        end(drain, err_exit_code(ERR_CONFIG),
            "confirmed messages stay in the outbox: "
            "does a trigger, a rule or a policy on outbox.message keep them from being deleted?");
    } else if (!ends_by_request(drain) && drain->max_messages > 0 && atomic_load(&shared->working) == 0 &&
               settled >= drain->max_messages) {
        end(drain, 75, "stopped by --max-messages");
    }
}

/* ---- telling
 * ---------------------------------------------------------------------------------------------------------
 */

static int64_t published(const struct drain *drain)
{
    struct pool *pool = drain->program->pool;
    return pool ? (int64_t)metrics_get(&pool_shared(pool)->metrics.published) : 0;
}

static void show_progress(struct drain *drain)
{
    bool tty = isatty(STDERR_FILENO);
    if (!drain->show_progress || clock_now_ms() < drain->progress_at_ms) {
        return;
    }
    drain->progress_at_ms = clock_now_ms() + (tty ? TICK_MS : PROGRESS_EVERY_MS);
    int64_t done = published(drain);
    int percent = drain->total > 0 && done < drain->total ? (int)(done * 100 / drain->total) : 100;
    if (tty) {
        (void)fprintf(stderr, "\r[%-40.*s] %3d %%  %" PRId64 " of %" PRId64, percent * 40 / 100,
                      "########################################", percent, done, drain->total);
    } else {
        LOG(&drain->program->log, LOG_INFO, "draining", log_number("published", done),
            log_number("of", drain->total));
    }
}

static void tell_text(const struct drain *drain, const struct metrics *metrics, double seconds)
{
    char left[120] = "";
    if (drain->looked) {
        (void)snprintf(left, sizeof left, ", %" PRId64 " left, %" PRId64 " on hold, %" PRId64 " wait",
                       drain->left.messages + drain->left.due, drain->left.resting, drain->left.waiting);
    }
    (void)fprintf(stderr, "outbox-relay: drained %" PRIu64 " in %.1f s, %" PRIu64 " dead-lettered%s: %s\n",
                  metrics_get(&metrics->published), seconds, metrics_get(&metrics->dead_lettered), left,
                  drain->result);
}

/* A figure of what is left: null where nobody could look. */
static json_t *figure(const struct drain *drain, int64_t number)
{
    return drain->looked ? json_integer((json_int_t)number) : json_null();
}

static void tell_json(const struct drain *drain, const struct metrics *metrics, double seconds)
{
    json_t *summary = json_pack(
        "{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:f, s:s, s:i}", "published",
        (json_int_t)metrics_get(&metrics->published), "retried", (json_int_t)metrics_get(&metrics->retried),
        "dead_lettered", (json_int_t)metrics_get(&metrics->dead_lettered), "possible_duplicates",
        (json_int_t)metrics_get(&metrics->possible_duplicates), "left",
        figure(drain, drain->left.messages + drain->left.due), "on_hold", figure(drain, drain->left.resting),
        "waiting", figure(drain, drain->left.waiting), "seconds", seconds, "result", drain->result,
        "exit_code", drain->code);
    (void)json_dumpf(summary, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    (void)printf("\n");
    json_decref(summary);
}

static void tell(struct drain *drain, bool json)
{
    static const struct metrics none;
    const struct metrics *metrics =
        drain->program->pool ? &pool_shared(drain->program->pool)->metrics : &none;
    double seconds = (double)(clock_now_ms() - drain->began_ms) / 1000;
    if (drain->show_progress && isatty(STDERR_FILENO)) {
        (void)fprintf(stderr, "\n");
    }
    (json ? tell_json : tell_text)(drain, metrics, seconds);
}

/* ---- the run
 * ----------------------------------------------------------------------------------------------------------
 */

static void supervise(struct drain *drain)
{
    struct wake *wake = &drain->program->wake;
    while (!drain->over) {
        uint64_t seen = wake_changes(wake);
        program_tick(drain->program);
        show_progress(drain);
        judge_limits(drain);
        if (!drain->over) {
            judge_health(drain);
        }
        judge_left(drain);
        if (!drain->over) {
            wake_wait(wake, seen, clock_now_ms() + TICK_MS / 10);
        }
    }
}

/* What happened in this run may make a good end a 1. */
static void judge_outcome(struct drain *drain)
{
    struct err err = {0};
    if (drain->code != 0 && drain->code != 1 && drain->code != 75) {
        return;
    }
    /* For the summary; the figures before it stay if the database is away or busy now. */
    (void)!look(drain, drain->program->wake.halt_fd, clock_now_ms() + LAST_LOOK_MS, &err);
    uint64_t dead =
        drain->program->pool ? metrics_get(&pool_shared(drain->program->pool)->metrics.dead_lettered) : 0;
    if (drain->code == 0 && dead > 0) {
        end(drain, 1, "some messages were dead-lettered");
    } else if (drain->code == 0 && drain->left.waiting > 0) {
        end(drain, 1, "some messages wait for a retry");
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
    return program_start(drain->program, drain->max_messages > 0 ? drain->max_messages : INT64_MAX / 2, err);
}

static void run(struct drain *drain, struct err *err)
{
    struct program *program = drain->program;
    bool something = program_open(program, err) == 0 && prepare(drain, err) == 0 && claimable(drain) > 0;
    if (something && start(drain, err) == 0) {
        supervise(drain);
    } else if (err_is_set(err)) {
        if (!ends_by_request(drain)) {
            end(drain, err_exit_code(err->class), err->text);
        }
    } else if (drain->left.messages + drain->left.due > 0) {
        end(drain, 1, ON_HOLD);
    } else {
        end(drain, 0, "nothing was due");
    }
    if (!program_stop(program)) {
        drain->forced = true;
        end(drain, err_exit_code(ERR_INTERNAL), "stopped by force; what was in flight stays in the outbox");
    } else {
        judge_outcome(drain);
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
        text_init(&drain.resting, RESTING_BYTES);
        drain.unavailable_after_ms = config_number(&program.config, "drain.unavailable_after");
        run(&drain, &err);
        tell(&drain, cli_has(cli, CLI_JSON));
        code = drain.code;
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
