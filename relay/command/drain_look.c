/* drain_look - what a drain aims at, and what is left of that: the database as the supervisor sees it. */
#include "base/clock.h"
#include "command/drain.h"

enum { LOOK_MS = 30000, RETRY_CONNECT_MS = 1000 };

int64_t drain_answer_by(const struct drain *drain)
{
    int64_t latest_ms = clock_now_ms() + LOOK_MS;
    return latest_ms < drain->until_ms ? latest_ms : drain->until_ms;
}

static void disconnect(struct drain *drain)
{
    pg_close(drain->pg);
    drain->pg = NULL;
}

static int ask(struct drain *drain, int64_t deadline_ms, struct err *err)
{
    struct program *program = drain->program;
    const struct inspect_filter filter = {program_included(program), program_excluded(program),
                                          text_get(&drain->resting), program_is_ordered(program)};
    drain->looked_ms = clock_now_ms();
    return inspect_drain_left(drain->pg, &drain->target, &filter, &drain->left, deadline_ms, err);
}

/* A delayed message that could not be moved when we aimed, because others held its lane, has a seq beyond our
 * target when a worker has moved it since: the target moves with it. */
static int ask_and_aim(struct drain *drain, int64_t deadline_ms, struct err *err)
{
    int64_t delayed = drain->left.delayed;
    struct inspect_target now;
    if (ask(drain, deadline_ms, err) != 0) {
        return -1;
    }
    if (drain->left.delayed >= delayed) {
        return 0;
    }
    if (inspect_drain_target(drain->pg, &now, deadline_ms, err) != 0) {
        return -1;
    }
    drain->target.seq = now.seq;
    return ask(drain, deadline_ms, err);
}

/* Patience begins anew with what becomes less of what we aimed at; what producers add since then is nothing
 * to wait for. */
static void note_progress(struct drain *drain)
{
    const struct inspect_left *left = &drain->left;
    int64_t owed = left->messages + left->due + left->awaited;
    if (owed < drain->owed) {
        drain->progress_ms = clock_now_ms();
    }
    drain->owed = owed;
}

int drain_look(struct drain *drain, int cancel_fd, int64_t deadline_ms, struct err *err)
{
    struct program *program = drain->program;
    text_clear(&drain->resting);
    text_add(&drain->resting, "{}");
    drain->rest_ends_ms = CLOCK_NEVER_MS;
    if (program->pool) {
        drain->rest_ends_ms =
            channels_on_hold(pool_shared(program->pool)->channels, clock_now_ms(), &drain->resting);
    }
    if (!drain->pg && program_connect(program, cancel_fd, deadline_ms, &drain->pg, err) != 0) {
        return -1;
    }
    pg_cancel_on(drain->pg, cancel_fd);
    if (ask_and_aim(drain, deadline_ms, err) != 0) {
        disconnect(drain);
        return -1;
    }
    drain->looked = true;
    note_progress(drain);
    return 0;
}

/* In pieces, each of them whole, until there are no more or others hold their lanes. */
static int promote(struct drain *drain, int64_t lanes, struct err *err)
{
    int64_t max_bytes = config_number(&drain->program->config, "batch.max_bytes");
    int64_t moved = 0;
    do {
        if (inspect_promote(drain->pg, max_bytes, lanes, &moved, drain_answer_by(drain), err) != 0) {
            if (err->class == ERR_STOPPED || drain_may_pass(err)) {
                return -1;
            }
            drain->promote_err = *err; /* all the others can go; it is told in the end */
            err_clear(err);
            return 0;
        }
    } while (moved > 0 && clock_now_ms() < drain->until_ms);
    return 0;
}

/* Where to aim, and how much that is. */
static int aim(struct drain *drain, struct err *err)
{
    struct program *program = drain->program;
    int stop_fd = program->wake.stop_fd;
    int64_t lanes = 0;
    if ((!drain->pg && program_connect(program, stop_fd, CLOCK_NEVER_MS, &drain->pg, err) != 0) ||
        program_check_outbox(&program->config, drain->pg, &lanes, err) != 0 ||
        promote(drain, lanes, err) != 0 ||
        inspect_drain_target(drain->pg, &drain->target, drain_answer_by(drain), err) != 0) {
        disconnect(drain);
        return -1;
    }
    return drain_look(drain, stop_fd, drain_answer_by(drain), err);
}

bool drain_may_pass(const struct err *err)
{
    return err->class == ERR_CONNECTION || err->class == ERR_RETRY;
}

int drain_prepare(struct drain *drain, struct err *err)
{
    struct program *program = drain->program;
    int64_t give_up_ms = clock_now_ms() + drain->unavailable_after_ms;
    bool told = false;
    while (aim(drain, err) != 0) {
        int64_t next_ms = clock_now_ms() + RETRY_CONNECT_MS;
        if (!drain_may_pass(err) || wake_is_stopping(&program->wake) || next_ms >= give_up_ms) {
            return -1;
        }
        if (!told && next_ms < drain->until_ms) {
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

int64_t drain_claimable(const struct drain *drain)
{
    int64_t shut_out = err_is_set(&drain->promote_err) ? drain->left.delayed : 0;
    return drain->left.messages + drain->left.due - drain->left.resting - shut_out;
}

bool drain_is_patient(const struct drain *drain)
{
    const struct inspect_left *left = &drain->left;
    int64_t ends_ms = clock_after(drain->progress_ms, drain->patience_ms);
    int64_t due_ms = clock_after(drain->looked_ms, left->next_due_ms);
    int64_t pause_ends_ms = clock_after(drain->looked_ms, left->pause_ends_ms);
    bool soon = (left->awaited > 0 && due_ms <= ends_ms) ||
                (left->resting > 0 && (drain->rest_ends_ms <= ends_ms || pause_ends_ms <= ends_ms));
    int64_t now_ms = clock_now_ms();
    bool owed = left->resting > 0 && drain->program->pool &&
                channels_owe_a_try(pool_shared(drain->program->pool)->channels, ends_ms, now_ms);
    return owed || (soon && now_ms < ends_ms);
}
