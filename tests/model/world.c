/* world - all that is not a worker: the broker, producers, strangers, time, and the mark that workers share.
 */
#include "model.h"

struct move move_of(const struct scene *scene, enum what what, unsigned who, unsigned row, bool calm)
{
    return (struct move){.step = {(uint8_t)what, (uint8_t)who, (uint8_t)row, calm}, .after = *scene->before};
}

/* ---- rows ---- */

bool is_stored(const struct row *row)
{
    return row->place == ROW_MESSAGE || row->place == ROW_WAITING || row->place == ROW_DUE;
}

bool is_running(const struct row *row)
{
    return row->place == ROW_BEGUN || row->place == ROW_UNCOMMITTED;
}

/* The next of `rows` with this key in the order of seq, behind `seq`; ROWS_MAX = none. */
unsigned next_of_key(const struct config *config, const struct state *state, unsigned rows, unsigned key,
                     unsigned seq)
{
    unsigned next = ROWS_MAX;
    for (unsigned row = 0; row < config->rows; row++) {
        if ((rows & bit(row)) && config->key_of_row[row] == key && state->rows[row].seq > seq &&
            (next == ROWS_MAX || state->rows[row].seq < state->rows[next].seq)) {
            next = row;
        }
    }
    return next;
}

/* ---- the broker ---- */

/* Order is promised to first deliveries: everything of the key in front is delivered, nothing behind it is.
 */
static bool breaks_order(const struct config *config, const struct state *state, unsigned row)
{
    unsigned key = config->key_of_row[row];
    unsigned seq = state->rows[row].seq;
    unsigned waiting = 0;
    for (unsigned other = 0; other < config->rows; other++) {
        waiting |= is_stored(&state->rows[other]) ? bit(other) & ~(unsigned)state->delivered : 0;
    }
    unsigned first = next_of_key(config, state, waiting, key, 0);
    return next_of_key(config, state, state->delivered, key, seq) != ROWS_MAX ||
           (first != ROWS_MAX && state->rows[first].seq < seq);
}

void broker_takes(const struct scene *scene, struct move *move, unsigned row)
{
    struct state *state = &move->after;
    if (state->rows[row].place == ROW_UNCOMMITTED || state->rows[row].place == ROW_ROLLED_BACK) {
        move->violation = "NoLoss: something uncommitted was delivered";
    }
    bool is_first = !(state->delivered & bit(row));
    if (scene->config->serialised && is_first && breaks_order(scene->config, state, row)) {
        move->violation = "KeyOrder: a first delivery overtook an earlier row of its key";
    }
    add_bits(&state->delivered, bit(row));
    remove_bits(&state->adrift, bit(row));
}

/* What a dead session had written may arrive at any time, or never. */
static void broker_steps(const struct scene *scene)
{
    for (unsigned row = 0; row < scene->config->rows; row++) {
        if (scene->before->adrift & bit(row)) {
            struct move move = move_of(scene, BROKER_TAKES, 0, row, false);
            broker_takes(scene, &move, row);
            search_add(scene->search, &move);
        }
    }
}

/* ---- producers, strangers, time ---- */

/* The producers' side of the order: who holds the key's lock, or may hold it, makes the others wait. */
bool must_wait_for_key(const struct scene *scene, unsigned row)
{
    if (!scene->config->serialised || DESIGN == BAD_SEQ_BEFORE_KEY_LOCK) {
        return false;
    }
    for (unsigned other = 0; other < scene->config->rows; other++) {
        if (scene->before->rows[other].place == ROW_UNCOMMITTED &&
            scene->config->key_of_row[other] == scene->config->key_of_row[row]) {
            return true;
        }
    }
    return false;
}

/* INSERT, in two halves if xids matter: the transaction id first, then the seq. */
static void producer_insert(const struct scene *scene, unsigned row)
{
    bool xids = scene->config->looks > 0;
    bool begun = scene->before->rows[row].place == ROW_BEGUN;
    struct move move = move_of(scene, xids && !begun ? PRODUCER_BEGIN : PRODUCER_INSERT, 0, row, false);
    struct row *mine = &move.after.rows[row];
    bool takes_xid = DESIGN == BAD_SEQ_BEFORE_XID ? begun : !begun;
    bool delayed = scene->config->delayed & bit(row);
    if (xids && takes_xid) {
        mine->xid = ++move.after.last_xid;
    }
    if ((!xids || !takes_xid) && !delayed) {
        if (must_wait_for_key(scene, row)) {
            return;
        }
        mine->seq = ++move.after.last_seq;
    }
    mine->place = xids && !begun ? ROW_BEGUN : ROW_UNCOMMITTED;
    search_add(scene->search, &move);
}

static void producer_end(const struct scene *scene, unsigned row, bool commits)
{
    /* Calm is the commit; a transaction that has inserted nothing has nothing to commit. */
    bool calm = commits || scene->before->rows[row].place == ROW_BEGUN;
    struct move move = move_of(scene, commits ? PRODUCER_COMMIT : PRODUCER_ROLLBACK, 0, row, calm);
    struct row *mine = &move.after.rows[row];
    if (mine->xid > move.after.completed_xid) {
        move.after.completed_xid = mine->xid;
    }
    mine->xid = 0;
    mine->seq = commits ? mine->seq : 0;
    bool delayed = scene->config->delayed & bit(row);
    mine->place = !commits ? ROW_ROLLED_BACK : delayed ? ROW_DELAYED : ROW_MESSAGE;
    search_add(scene->search, &move);
}

/* Rows of one key differ in nothing but their name: let them begin in the order of their names. */
static bool is_next_of_its_key(const struct scene *scene, unsigned row)
{
    for (unsigned other = 0; other < row; other++) {
        if (scene->before->rows[other].place == ROW_ABSENT &&
            scene->config->key_of_row[other] == scene->config->key_of_row[row]) {
            return false;
        }
    }
    return true;
}

static void producer_steps(const struct scene *scene, unsigned row)
{
    uint8_t place = scene->before->rows[row].place;
    if ((place == ROW_ABSENT && is_next_of_its_key(scene, row)) || place == ROW_BEGUN) {
        producer_insert(scene, row);
    }
    if (place == ROW_UNCOMMITTED) {
        producer_end(scene, row, true);
    }
    if (is_running(&scene->before->rows[row])) {
        producer_end(scene, row, false);
    }
}

static void stranger_steps(const struct scene *scene, unsigned row)
{
    const struct row *seen = &scene->before->rows[row];
    if (seen->locker == LOCKER_STRANGER) {
        struct move move = move_of(scene, STRANGER_LETS_GO, 0, row, true);
        move.after.rows[row].locker = LOCKER_NONE;
        search_add(scene->search, &move);
    } else if (is_stored(seen) && seen->locker == LOCKER_NONE && scene->before->strangers > 0) {
        struct move move = move_of(scene, STRANGER_LOCKS, 0, row, false);
        move.after.rows[row].locker = LOCKER_STRANGER;
        move.after.strangers--;
        search_add(scene->search, &move);
    }
}

static void time_passes(const struct scene *scene, unsigned row)
{
    if (scene->before->rows[row].place == ROW_WAITING) {
        struct move move = move_of(scene, TIME_PASSES, 0, row, true);
        move.after.rows[row].place = ROW_DUE;
        search_add(scene->search, &move);
    }
}

/* ---- the low watermark of relay/store/mark.h, shared by the workers ---- */

/* As PostgreSQL has them: the first xid that runs, and the one behind the last that has *ended*. */
static unsigned xmin_of(const struct state *state)
{
    unsigned xmin = state->completed_xid + 1U;
    for (unsigned row = 0; row < ROWS_MAX; row++) {
        if (state->rows[row].xid != 0 && state->rows[row].xid < xmin) {
            xmin = state->rows[row].xid;
        }
    }
    return xmin;
}

/* A transaction of our own that takes an xid and ends: it only ever delays xmin. */
static void take_xid(struct state *state)
{
    if (DESIGN == BAD_MARK_FROM_XMAX) {
        state->mark_xid = (uint8_t)(state->completed_xid + 1);
        return;
    }
    state->mark_xid = ++state->last_xid;
    state->completed_xid = state->mark_xid;
}

static void mark_ask(const struct scene *scene)
{
    bool first_half = scene->before->mark_phase == MARK_IDLE;
    bool highest = first_half != (DESIGN == BAD_MARK_XID_BEFORE_HIGHEST);
    struct move move = move_of(scene, highest ? MARK_HIGHEST : MARK_XID, 0, 0, false);
    if (first_half) {
        move.after.looks--;
    }
    move.after.mark_phase++;
    if (highest) {
        move.after.mark_highest = move.after.last_seq;
    } else {
        take_xid(&move.after);
    }
    search_add(scene->search, &move);
}

/* In a later snapshot with xmin >= X: mark = the first visible seq <= C, or C + 1. */
static void mark_learn(const struct scene *scene)
{
    struct move move = move_of(scene, MARK_LEARN, 0, 0, false);
    struct state *state = &move.after;
    if (xmin_of(state) < state->mark_xid) {
        return;
    }
    unsigned first = state->mark_highest + 1U;
    for (unsigned row = 0; row < scene->config->rows; row++) {
        if (state->rows[row].place == ROW_MESSAGE && state->rows[row].seq < first) {
            first = state->rows[row].seq;
        }
    }
    state->mark = first > state->mark ? (uint8_t)first : state->mark;
    state->mark_phase = MARK_IDLE;
    state->mark_highest = state->mark_xid = 0;
    search_add(scene->search, &move);
}

static void mark_steps(const struct scene *scene)
{
    if (scene->before->mark_phase == MARK_PENDING) {
        mark_learn(scene);
    } else if (scene->before->mark_phase == MARK_HALF_ASKED || scene->before->looks > 0) {
        mark_ask(scene);
    }
}

void world_begin(const struct config *config, struct state *state)
{
    *state = (struct state){.faults = config->faults,
                            .refusals = config->refusals,
                            .strangers = config->strangers,
                            .looks = config->looks};
}

void world_steps(const struct scene *scene)
{
    for (unsigned row = 0; row < scene->config->rows; row++) {
        producer_steps(scene, row);
        stranger_steps(scene, row);
        time_passes(scene, row);
    }
    broker_steps(scene);
    mark_steps(scene);
}
