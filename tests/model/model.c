/*
 * model - the relay's protocol, step by step, for a search through all interleavings (search.c).
 *
 * Read it next to relay/machine/worker.c: what the worker calls source_commit is the step source_commit here.
 * A step is what no other session can look into: one statement's snapshot, one statement's row locks, one
 * message's way to the broker and back. README.md says what is modelled and what is not.
 */
#include "model.h"

/* ---- transactions and their locks ---- */

static unsigned locker_of(unsigned who)
{
    return who + 1;
}

static void release_rows(struct state *state, unsigned who)
{
    for (unsigned row = 0; row < ROWS_MAX; row++) {
        if (state->rows[row].locker == locker_of(who)) {
            state->rows[row].locker = LOCKER_NONE;
        }
    }
}

/* COMMIT and ROLLBACK alike: the locks go, the worker forgets its batch. */
static void end_transaction(struct state *state, unsigned who)
{
    release_rows(state, who);
    state->workers[who] = (struct worker){.phase = WORKER_IDLE};
}

static unsigned all_lanes(const struct config *config)
{
    unsigned lanes = 0;
    for (unsigned row = 0; row < config->rows; row++) {
        lanes |= bit(config->lane_of_key[config->key_of_row[row]]);
    }
    return lanes;
}

static unsigned free_lanes(const struct config *config, const struct state *state)
{
    unsigned lanes = all_lanes(config);
    for (unsigned who = 0; who < config->workers; who++) {
        lanes &= ~(unsigned)state->workers[who].lanes;
    }
    return lanes;
}

/* ---- source_claim: lanes, then a snapshot, then row locks ---- */

static bool takes_no_lanes(const struct config *config)
{
    return !config->by_lanes || DESIGN == BAD_UNLOCKED_RUN;
}

static bool reads_before_lanes(const struct config *config)
{
    return config->by_lanes &&
           (DESIGN == BAD_LOCK_AND_READ_IN_ONE_STATEMENT || DESIGN == BAD_LOCK_AND_READ_WITHOUT_ROW_LOCKS);
}

/* What a snapshot sees of a key, as far as it may be claimed: from its head to the first row that waits. */
static void read_run(const struct config *config, const struct state *state, struct worker *worker,
                     unsigned key)
{
    unsigned run = 0;
    for (unsigned row = next_of_key(config, state, ALL_ROWS, key, 0);
         row != ROWS_MAX && run < config->run_max;
         row = next_of_key(config, state, ALL_ROWS, key, state->rows[row].seq)) {
        unsigned place = state->rows[row].place;
        if ((place == ROW_WAITING && DESIGN != BAD_SCHEDULED_DOES_NOT_BLOCK) ||
            (place == ROW_DUE && DESIGN == BAD_RETRY_BLOCKS_FOR_EVER)) {
            return;
        }
        if (place == ROW_MESSAGE && state->rows[row].seq >= state->mark) {
            add_bits(&worker->read_message, bit(row));
            run++;
        } else if (place == ROW_DUE) {
            add_bits(&worker->read_due, bit(row));
            run++;
        }
    }
}

/* FOR UPDATE SKIP LOCKED checks the newest version: a row that was deleted or moved since is not there. */
static bool can_lock(const struct state *state, const struct worker *worker, unsigned row)
{
    unsigned place = state->rows[row].place;
    return state->rows[row].locker == LOCKER_NONE &&
           ((place == ROW_MESSAGE && (worker->read_message & bit(row))) ||
            (place == ROW_DUE && (worker->read_due & bit(row))));
}

/* FOR UPDATE SKIP LOCKED, compared with the unlocked read: the run of a key ends at the first gap. */
static void lock_run(const struct config *config, struct state *state, unsigned who, unsigned key)
{
    struct worker *worker = &state->workers[who];
    unsigned read = worker->read_message | worker->read_due;
    bool unbroken = true;
    bool head_locked = false;
    for (unsigned row = next_of_key(config, state, read, key, 0); row != ROWS_MAX;
         row = next_of_key(config, state, read, key, state->rows[row].seq)) {
        if (DESIGN == BAD_LOCK_AND_READ_WITHOUT_ROW_LOCKS || (DESIGN == BAD_UNLOCKED_RUN && head_locked)) {
            add_bits(&worker->batch, bit(row));
        } else if (can_lock(state, worker, row)) {
            state->rows[row].locker = (uint8_t)locker_of(who);
            head_locked = true;
            add_bits(&worker->batch, unbroken ? bit(row) : 0);
        } else if (DESIGN == BAD_UNLOCKED_RUN || (config->cut_at_gaps && DESIGN != BAD_NO_GAP_CUT)) {
            unbroken = false; /* what stands behind the gap stays locked until COMMIT, but is not claimed */
        }
    }
}

static void source_take_lanes(const struct scene *scene, unsigned who, unsigned asked)
{
    struct move move = move_of(scene, SOURCE_TAKE_LANES, who, 0, asked == all_lanes(scene->config));
    struct worker *worker = &move.after.workers[who];
    worker->lanes = (uint8_t)(asked & free_lanes(scene->config, scene->before));
    worker->from = DESIGN == BAD_CLAIM_NOT_CONDITIONAL ? (uint8_t)asked : worker->lanes;
    worker->phase = WORKER_HAS_LANES;
    if (worker->from != 0) {
        search_add(scene->search, &move); /* with nothing got, the transaction ends and nothing has changed */
    }
}

static void source_claim_reads(const struct scene *scene, unsigned who, unsigned lanes)
{
    struct move move = move_of(scene, SOURCE_CLAIM_READS, who, 0, true);
    struct worker *worker = &move.after.workers[who];
    worker->from = (uint8_t)lanes;
    worker->phase = WORKER_HAS_READ;
    for (unsigned key = 0; key < KEYS_MAX; key++) {
        if (lanes & bit(scene->config->lane_of_key[key])) {
            read_run(scene->config, scene->before, worker, key);
        }
    }
    search_add(scene->search, &move);
}

/* The wrong mark: a claim shows which rows are there now, not which are still to come. */
static void learn_from_claim(struct state *state, unsigned batch)
{
    for (unsigned row = 0; row < ROWS_MAX; row++) {
        if ((batch & bit(row)) && state->rows[row].seq > state->mark) {
            state->mark = state->rows[row].seq;
        }
    }
}

static void source_claim_locks(const struct scene *scene, unsigned who)
{
    struct move move = move_of(scene, SOURCE_CLAIM_LOCKS, who, 0, true);
    struct state *state = &move.after;
    struct worker *worker = &state->workers[who];
    if (reads_before_lanes(scene->config)) {
        worker->from = worker->lanes = (uint8_t)(worker->from & free_lanes(scene->config, state));
    }
    for (unsigned key = 0; key < KEYS_MAX; key++) {
        if (worker->from & bit(scene->config->lane_of_key[key])) {
            lock_run(scene->config, state, who, key);
        }
    }
    worker->phase = WORKER_PUBLISHING;
    worker->from = worker->read_message = worker->read_due = 0;
    if (DESIGN == BAD_MARK_FROM_CLAIMS) {
        learn_from_claim(state, worker->batch);
    }
    if (worker->batch == 0) {
        end_transaction(state, who); /* an empty claim ends its transaction */
    }
    search_add(scene->search, &move);
}

/* ---- promote: a transaction of its own, in front of a claim from outbox.scheduled ---- */

static void end_xid(struct state *state, struct row *row)
{
    state->completed_xid = row->xid > state->completed_xid ? row->xid : state->completed_xid;
    row->xid = 0;
}

/* The lane, then the xid, then the seq. */
static void source_promotes(const struct scene *scene, unsigned who, unsigned row)
{
    struct move move = move_of(scene, SOURCE_PROMOTES, who, row, true);
    struct row *mine = &move.after.rows[row];
    struct worker *worker = &move.after.workers[who];
    unsigned lane = bit(scene->config->lane_of_key[scene->config->key_of_row[row]]);
    if (must_wait_for_key(scene, row)) {
        return; /* in truth it does not: README.md, "Not modelled" */
    }
    if (DESIGN != BAD_PROMOTE_WITHOUT_LANES) {
        if (!(lane & free_lanes(scene->config, scene->before))) {
            return;
        }
        worker->lanes = (uint8_t)lane;
    }
    if (scene->config->looks > 0) {
        mine->xid = ++move.after.last_xid;
    }
    mine->seq = ++move.after.last_seq;
    mine->locker = (uint8_t)locker_of(who);
    mine->place = ROW_PROMOTED;
    worker->phase = WORKER_PROMOTING;
    search_add(scene->search, &move);
}

/* The row of its open promotion becomes what it says, or is undone. */
static void end_promotion(struct state *state, unsigned who, bool commits)
{
    for (unsigned row = 0; row < ROWS_MAX; row++) {
        struct row *mine = &state->rows[row];
        if (mine->place == ROW_PROMOTED && mine->locker == locker_of(who)) {
            mine->place = commits ? ROW_MESSAGE : ROW_DELAYED;
            mine->seq = commits ? mine->seq : 0;
            end_xid(state, mine);
        }
    }
}

static void promote_commits(const struct scene *scene, unsigned who)
{
    struct move move = move_of(scene, PROMOTE_COMMITS, who, 0, true);
    end_promotion(&move.after, who, true);
    end_transaction(&move.after, who);
    search_add(scene->search, &move);
}

static void promote_steps(const struct scene *scene, unsigned who)
{
    for (unsigned row = 0; row < scene->config->rows; row++) {
        if (scene->before->rows[row].place == ROW_DELAYED) {
            source_promotes(scene, who, row);
        }
    }
}

/* ---- backend_publish ---- */

/* What may be in flight now: of each key the first message that is not confirmed, unless it was refused. */
static unsigned wave(const struct scene *scene, const struct worker *worker)
{
    unsigned settled = worker->confirmed | worker->refused;
    unsigned rows = 0;
    for (unsigned key = 0; key < KEYS_MAX && !worker->session_lost; key++) {
        unsigned row = next_of_key(scene->config, scene->before, worker->batch, key, 0);
        while (row != ROWS_MAX) {
            bool passed = worker->confirmed & bit(row);
            if (!(settled & bit(row))) {
                rows |= bit(row);
            }
            if (!passed && DESIGN != BAD_NO_WAVES) {
                break;
            }
            row = next_of_key(scene->config, scene->before, worker->batch, key, scene->before->rows[row].seq);
        }
    }
    return rows;
}

/* Nobody knows what became of these. Those that were delivered before are of no interest. */
static void set_adrift(struct state *state, unsigned rows)
{
    add_bits(&state->adrift, rows & ~(unsigned)state->delivered);
}

static void publish_one(const struct scene *scene, unsigned who, unsigned row)
{
    const struct worker *worker = &scene->before->workers[who];
    struct move move = move_of(scene, PUBLISH_CONFIRMED, who, row, true);
    if (scene->before->rows[row].place == ROW_DELETED && !worker->zombie) {
        move.violation = "NoNeedlessDuplicate: sent again although its deletion had been committed";
    }
    broker_takes(scene, &move, row);
    add_bits(&move.after.workers[who].confirmed, bit(row));
    search_add(scene->search, &move);

    if (scene->before->refusals > 0) {
        struct move refused = move_of(scene, PUBLISH_REFUSED, who, row, false);
        set_adrift(&refused.after,
                   bit(row)); /* one of several queues, or a proxy's 504: it may be there all the same */
        add_bits(&refused.after.workers[who].refused, bit(row));
        refused.after.refusals--;
        search_add(scene->search, &refused);
    }
}

/* What was in flight stays; or it has to wait, as a suspect on which the session died
 * (relay/machine/verdict.c). */
static void lose_session(const struct scene *scene, unsigned who, unsigned in_flight)
{
    struct move move = move_of(scene, PUBLISH_LOST, who, 0, false);
    set_adrift(&move.after, in_flight);
    move.after.workers[who].session_lost = true;
    move.after.faults--;
    search_add(scene->search, &move);
    if (scene->before->refusals > 0) {
        move.step.what = PUBLISH_LOST_MOVES;
        add_bits(&move.after.workers[who].refused, in_flight);
        move.after.refusals--;
        search_add(scene->search, &move);
    }
}

static void backend_publish(const struct scene *scene, unsigned who)
{
    unsigned in_flight = wave(scene, &scene->before->workers[who]);
    for (unsigned row = 0; row < scene->config->rows; row++) {
        if (in_flight & bit(row)) {
            publish_one(scene, who, row);
        }
    }
    if (in_flight != 0 && scene->before->faults > 0) {
        lose_session(scene, who, in_flight);
    }
}

/* ---- source_settle, source_commit ---- */

/* DELETE and the moves: nobody sees them before COMMIT. A zombie is told here that its session has ended. */
static void source_settle(const struct scene *scene, unsigned who)
{
    struct move move = move_of(scene, SOURCE_SETTLE, who, 0, true);
    if (scene->before->workers[who].zombie) {
        end_transaction(&move.after, who);
    } else {
        move.after.workers[who].phase = WORKER_SETTLED;
    }
    search_add(scene->search, &move);
}

static void source_commit(const struct scene *scene, unsigned who)
{
    struct move move = move_of(scene, SOURCE_COMMIT, who, 0, true);
    const struct worker *worker = &scene->before->workers[who];
    unsigned deleted = worker->confirmed;
    if (DESIGN == BAD_DELETE_BEFORE_CONFIRM) {
        deleted = worker->batch & ~(unsigned)worker->refused;
    }
    for (unsigned row = 0; row < scene->config->rows; row++) {
        struct row *settled = &move.after.rows[row];
        if (is_stored(settled) && (deleted & bit(row))) {
            settled->place = ROW_DELETED;
            if (!(scene->before->delivered & bit(row))) {
                move.violation = "NoLoss: deleted, and the broker never took it";
            }
        } else if (is_stored(settled) && (worker->refused & bit(row))) {
            settled->place = ROW_WAITING;
        }
    }
    end_transaction(&move.after, who);
    search_add(scene->search, &move);

    /* The answer is lost. Had it committed, all would be as above: the worker forgets its batch either way.
     */
    if (scene->before->faults > 0) {
        struct move lost = move_of(scene, COMMIT_LOST, who, 0, false);
        end_transaction(&lost.after, who);
        lost.after.faults--;
        search_add(scene->search, &lost);
    }
}

/* ---- a worker's faults ---- */

/* kill -9: the transaction is undone, its locks go, and the next process starts from nothing. */
static void crash(const struct scene *scene, unsigned who)
{
    struct move move = move_of(scene, CRASH, who, 0, false);
    const struct worker *worker = &scene->before->workers[who];
    set_adrift(&move.after, worker->phase == WORKER_PUBLISHING ? wave(scene, worker) : 0);
    end_promotion(&move.after, who, false);
    end_transaction(&move.after, who);
    if (DESIGN == BAD_LEASE_OUTLIVES_SESSION) {
        move.after.workers[who].lanes = worker->lanes;
    }
    move.after.faults--;
    search_add(scene->search, &move);
}

/* The database ends the session, and the worker publishes on until it asks the database something. */
static void source_lost(const struct scene *scene, unsigned who)
{
    struct move move = move_of(scene, SOURCE_LOST, who, 0, false);
    release_rows(&move.after, who);
    move.after.workers[who].zombie = true;
    move.after.workers[who].lanes = 0;
    move.after.faults--;
    search_add(scene->search, &move);
}

/* ---- the loop of worker.c, as steps ---- */

static void claim_steps(const struct scene *scene, unsigned who)
{
    unsigned all = all_lanes(scene->config);
    for (unsigned lanes = all; lanes != 0; lanes = (lanes - 1) & all) {
        if (takes_no_lanes(scene->config) || reads_before_lanes(scene->config)) {
            source_claim_reads(scene, who, lanes);
        } else {
            source_take_lanes(scene, who, lanes);
        }
    }
}

static void worker_steps(const struct scene *scene, unsigned who)
{
    const struct worker *worker = &scene->before->workers[who];
    switch (worker->phase) {
    case WORKER_IDLE:
        promote_steps(scene, who);
        claim_steps(scene, who);
        return;
    case WORKER_HAS_LANES:
        source_claim_reads(scene, who, worker->from);
        break;
    case WORKER_HAS_READ:
        source_claim_locks(scene, who);
        break;
    case WORKER_PROMOTING:
        promote_commits(scene, who);
        break;
    case WORKER_PUBLISHING:
        backend_publish(scene, who);
        if (wave(scene, worker) == 0) {
            source_settle(scene, who);
        }
        break;
    default:
        source_commit(scene, who);
    }
    if (scene->before->faults > 0) {
        crash(scene, who);
        if (worker->phase == WORKER_PUBLISHING && !worker->zombie) {
            source_lost(scene, who);
        }
    }
}

/* The calm continuation lets workers finish before idle ones begin: it is the first calm step. */
void model_steps(const struct scene *scene)
{
    world_steps(scene);
    for (int idle = 0; idle <= 1; idle++) {
        for (unsigned who = 0; who < scene->config->workers; who++) {
            if ((scene->before->workers[who].phase == WORKER_IDLE) == idle) {
                worker_steps(scene, who);
            }
        }
    }
}
