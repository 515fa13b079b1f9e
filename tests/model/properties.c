/*
 * properties - what must hold in every state; what a single step can break (NoLoss, KeyOrder,
 * NoNeedlessDuplicate) is tested where it happens, in model.c and world.c.
 */
#include "model.h"

static bool has_open_batch(const struct worker *worker)
{
    return (worker->phase == WORKER_PUBLISHING || worker->phase == WORKER_SETTLED) && !worker->zombie;
}

static bool has_transaction(const struct config *config, const struct state *state, unsigned who)
{
    return who < config->workers && state->workers[who].phase != WORKER_IDLE && !state->workers[who].zombie;
}

static const char *check_row(const struct config *config, const struct state *state, unsigned row)
{
    unsigned batches = 0;
    for (unsigned who = 0; who < config->workers; who++) {
        const struct worker *worker = &state->workers[who];
        batches += has_open_batch(worker) && (worker->batch & bit(row));
    }
    unsigned locker = state->rows[row].locker;
    if (batches > 1) {
        return "NoDoubleClaim: a row is in two open batches";
    }
    if (locker != LOCKER_NONE && locker != LOCKER_STRANGER && !has_transaction(config, state, locker - 1)) {
        return "NoStuckLock: a lock without a transaction";
    }
    if (state->rows[row].place == ROW_MESSAGE && state->rows[row].seq < state->mark) {
        return "NoLoss: a row stands below the mark, where no claim will look";
    }
    return NULL;
}

/* A lease in a column is no lock: what is wrong with it shows when nobody gets it any more. */
static bool holds_stray_lane(const struct config *config, const struct state *state)
{
    for (unsigned who = 0; who < config->workers; who++) {
        if (state->workers[who].lanes != 0 && !has_transaction(config, state, who)) {
            return true;
        }
    }
    return false;
}

const char *model_check(const struct config *config, const struct state *state)
{
    if (holds_stray_lane(config, state) && DESIGN != BAD_LEASE_OUTLIVES_SESSION) {
        return "NoStuckLock: a lane without a transaction";
    }
    for (unsigned row = 0; row < config->rows; row++) {
        const char *violation = check_row(config, state, row);
        if (violation) {
            return violation;
        }
    }
    return NULL;
}

bool model_is_done(const struct config *config, const struct state *state)
{
    for (unsigned row = 0; row < config->rows; row++) {
        const struct row *mine = &state->rows[row];
        bool on_its_way = mine->place == ROW_DELAYED || mine->place == ROW_PROMOTED;
        if (is_stored(mine) || is_running(mine) || on_its_way || mine->locker != LOCKER_NONE) {
            return false;
        }
    }
    for (unsigned who = 0; who < config->workers; who++) {
        if (state->workers[who].phase != WORKER_IDLE || state->workers[who].lanes != 0) {
            return false;
        }
    }
    return true;
}

const char *model_blame(const struct config *config, const struct state *state)
{
    return holds_stray_lane(config, state)
               ? "NoStuckLock: a lane is never free again, although no more faults happen"
               : "NoLoss: a row is never delivered, although no more faults happen";
}
