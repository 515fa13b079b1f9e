/* drain_end - when a drain is over, and with which exit code: the first that applies of 78, 77, 69, 75, 1, 0.
 */
#include <stdio.h>

#include "base/clock.h"
#include "base/printable.h"
#include "command/drain.h"

enum {
    LAST_LOOK_MS = 2000,
    LOOK_REST = 9, /* a look at what is left is followed by so many times its own length without one */
    OTHERS_HOLD_AFTER_MS = 1000,
    STUCK_AFTER_MS = 3000,
    RESULT_BYTES = 700
};

const char DRAIN_ON_HOLD[] = "what is left is on hold, is paused, or waits behind a retry of its key";

void drain_end(struct drain *drain, int code, const char *result)
{
    drain->over = true;
    drain->code = code;
    (void)snprintf(drain->result, sizeof drain->result, "%s", result);
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
            drain_end(drain, err_exit_code(view.last.class), text);
        }
    }
}

static void see_stranger(void *context, const char *sentence)
{
    char *first = context;
    if (first[0] == '\0') {
        printable_copy(first, RESULT_BYTES, bytes_of(sentence));
    }
}

/* Another relay, unless somebody else is found. */
static void end_for_others(struct drain *drain)
{
    char who[RESULT_BYTES] = "";
    char text[RESULT_BYTES];
    struct err err = {0};
    if (!drain->pg ||
        inspect_strangers(drain->pg, see_stranger, who, clock_now_ms() + LAST_LOOK_MS, &err) != 0) {
        who[0] = '\0'; /* it is only to help */
    }
    (void)snprintf(text, sizeof text, "another process holds the rest%s%.500s", who[0] ? ": " : "", who);
    drain_end(drain, 75, text);
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
    if (!idle || drain->unclaimable_since_ms == 0 || drain->unclaimable != drain_claimable(drain)) {
        drain->unclaimable_since_ms = idle ? clock_now_ms() : 0;
        drain->unclaimable = drain_claimable(drain);
        drain->unclaimable_after = empty_claims;
    } else if (clock_now_ms() - drain->unclaimable_since_ms > OTHERS_HOLD_AFTER_MS &&
               clock_now_ms() - atomic_load(&shared->last_claim_ms) > OTHERS_HOLD_AFTER_MS &&
               empty_claims - drain->unclaimable_after > 1) {
        end_for_others(drain);
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
    if (!working && (lasts || !drain_may_pass(err))) {
        drain_end(drain, err_exit_code(err->class), err->text);
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
    bool failed = drain_look(drain, drain->program->wake.stop_fd, drain_answer_by(drain), &err) != 0;
    int64_t rest_ms = LOOK_REST * (clock_now_ms() - began_ms);
    drain->look_again_ms = clock_after(clock_now_ms(), rest_ms > DRAIN_TICK_MS ? rest_ms : DRAIN_TICK_MS);
    drain->blind_since_ms = failed ? drain->blind_since_ms : 0;
    /* somebody's turn may have come, and gone, meanwhile */
    working = working || atomic_load(&shared->working) > 0 || atomic_load(&shared->last_claim_ms) >= began_ms;
    if (failed) {
        judge_failed_look(drain, &err, working);
    } else if (drain->left.messages == 0 && drain->left.due == 0) {
        if (!drain_is_patient(drain)) {
            drain_end(drain, 0,
                      "nothing is left"); /* what workers have in hand still counts; newer rows do not */
        }
    } else if (!working &&
               (drain_claimable(drain) == 0 || channels_group_rests(shared->channels, began_ms))) {
        if (!drain_is_patient(drain)) {
            drain_end(drain, 1, DRAIN_ON_HOLD);
        }
    } else if (!working) {
        judge_unclaimable(drain);
    }
}

bool drain_ends_by_request(struct drain *drain)
{
    if (atomic_load(&drain->program->signals.terminate)) {
        drain_end(drain, 75, "stopped by a signal");
        return true;
    }
    if (clock_now_ms() >= drain->until_ms) {
        drain_end(drain, 75, "stopped by --max-time");
        return true;
    }
    return false;
}

/* Messages that can neither go nor be set aside, counted each time. */
static uint64_t count_stuck(const struct drain *drain)
{
    const struct metrics *metrics = &pool_shared(drain->program->pool)->metrics;
    return metrics_get(&metrics->stuck) + metrics_get(&metrics->kept);
}

static void end_stuck(struct drain *drain)
{
    bool kept = metrics_get(&pool_shared(drain->program->pool)->metrics.kept) > 0;
    char text[RESULT_BYTES];
    (void)snprintf(text, sizeof text,
                   "%s: does a trigger, a rule, a policy or a constraint keep them? The log says more",
                   kept ? "confirmed messages stay in the outbox"
                        : "messages that are to be set aside stay where they are");
    drain_end(drain, err_exit_code(ERR_CONFIG), text);
}

/* They come again and again: only when nothing else goes any more, they are the end; sooner, if whole batches
 * of them follow each other. */
static bool only_stuck_ones_are_left(struct drain *drain, int64_t settled)
{
    uint64_t stuck = count_stuck(drain);
    uint64_t whole = metrics_get(&pool_shared(drain->program->pool)->metrics.kept_whole);
    int64_t now_ms = clock_now_ms();
    if (settled > drain->settled || stuck == 0 || drain->settled_ms == 0) {
        drain->settled = settled;
        drain->settled_ms = now_ms;
        drain->settled_stuck = stuck;
        drain->settled_whole = whole;
    }
    return whole > drain->settled_whole + 1 ||
           (now_ms - drain->settled_ms > STUCK_AFTER_MS && stuck > drain->settled_stuck + 1);
}

static void judge_limits(struct drain *drain)
{
    struct shared *shared = pool_shared(drain->program->pool);
    int64_t settled =
        (int64_t)(metrics_get(&shared->metrics.published) + metrics_get(&shared->metrics.dead_lettered));
    if (only_stuck_ones_are_left(drain, settled)) {
        end_stuck(drain);
    } else if (!drain_ends_by_request(drain) && drain->max_messages > 0 &&
               atomic_load(&shared->working) == 0 && settled >= drain->max_messages) {
        drain_end(drain, 75, "stopped by --max-messages");
        drain->reached_limit = true;
    }
}

void drain_judge(struct drain *drain)
{
    judge_limits(drain);
    if (!drain->over) {
        judge_health(drain);
    }
    judge_left(drain);
}

void drain_judge_outcome(struct drain *drain)
{
    struct err err = {0};
    if (drain->code != 0 && drain->code != 1 && drain->code != 75) {
        return;
    }
    /* For the summary; the figures before it stay if the database is away or busy now. Who never knew what he
     * aims at cannot tell what is left of it. */
    if (drain->looked) {
        (void)!drain_look(drain, drain->program->wake.halt_fd, clock_now_ms() + LAST_LOOK_MS, &err);
    }
    uint64_t dead =
        drain->program->pool ? metrics_get(&pool_shared(drain->program->pool)->metrics.dead_lettered) : 0;
    if (drain->reached_limit && drain->left.messages == 0 && drain->left.due == 0) {
        drain_end(drain, 0, "nothing is left");
    }
    if (drain->code == 1 && drain->program->pool && count_stuck(drain) > 0 &&
        drain->left.messages + drain->left.due > 0) {
        end_stuck(drain);
    }
    if ((drain->code == 0 || drain->code == 1) && err_is_set(&drain->promote_err)) {
        char text[sizeof drain->result];
        (void)snprintf(text, sizeof text, "delayed messages that are due cannot enter outbox.message: %s",
                       drain->promote_err.text);
        drain_end(drain, err_exit_code(ERR_CONFIG), text);
    } else if (drain->code == 0 && dead > 0) {
        drain_end(drain, 1, "some messages were dead-lettered");
    } else if (drain->code == 0 && drain->left.waiting > 0) {
        drain_end(drain, 1, "some messages wait for a retry");
    }
}
