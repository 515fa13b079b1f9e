/*
 * main - the configurations, and how a counterexample is printed.
 *
 * model [CONFIGURATION...]: ends 0 if all properties hold in all states, 1 with a counterexample, 2 if the
 * search could not be finished.
 */
#include <string.h>

#include "search.h"

#define TEXT_OF(name)  #name
#define TEXT(expanded) TEXT_OF(expanded)
const char *const model_design = TEXT(DESIGN);

/*
 * Each bounds something else. "lanes alone" and "row locks alone" show that either of the two keeps workers
 * apart, the former as long as no stranger locks rows. In the overlapping ones the producers do not wait for
 * each other: no order is promised then, but all else is.
 */
/* clang-format off */
enum { no = false, yes = true };
static const struct config configs[] = {
    /*                                         key of        lane of  run  seria- by     cut at                   stran-       de-
     *                          workers  rows  each row      each key max  lised  lanes  gaps  faults  refusals   gers  looks  layed */
    {"lanes alone",              2,      3,   {0, 0, 1},    {0, 1},  2,   yes,   yes,   no,   1,      1,         0,     0,     0},
    {"row locks alone",          2,      3,   {0, 0, 0},    {0, 0},  2,   yes,   no,    yes,  2,      1,         1,     0,     0},
    {"overlapping",              2,      3,   {0, 0, 0},    {0, 0},  3,   no,    yes,   yes,  2,      1,         1,     0,     0},
    {"mark",                     2,      3,   {0, 0, 1},    {0, 0},  2,   yes,   yes,   yes,  0,      1,         0,     2,     0},
    {"one key",                  2,      3,   {0, 0, 0},    {0, 0},  2,   yes,   yes,   yes,  2,      2,         2,     0,     0},
    {"one lane",                 2,      3,   {0, 0, 1},    {0, 0},  2,   yes,   yes,   yes,  2,      1,         1,     0,     0},
    {"row locks, overlapping",   2,      3,   {0, 0, 0},    {0, 0},  3,   no,    no,    yes,  1,      1,         1,     0,     0},
    {"three workers",            3,      3,   {0, 0, 1},    {0, 1},  2,   yes,   yes,   yes,  1,      1,         0,     0,     0},
    {"two lanes",                2,      3,   {0, 0, 1},    {0, 1},  2,   yes,   yes,   yes,  1,      1,         1,     0,     0},
    {"mark and faults",          1,      3,   {0, 0, 1},    {0, 0},  2,   yes,   yes,   yes,  1,      1,         0,     2,     0},
    {"delayed",                  2,      3,   {0, 0, 0},    {0, 0},  2,   yes,   yes,   yes,  1,      1,         0,     0,     2},
    {"delayed, two lanes",       2,      3,   {0, 0, 1},    {0, 1},  2,   yes,   yes,   yes,  1,      1,         0,     0,     5},
    {"delayed, and a mark",      1,      3,   {0, 0, 0},    {0, 0},  2,   yes,   yes,   yes,  1,      0,         0,     2,     2},
};
/* clang-format on */

/* ---- printing ---- */

static const char *const step_names[] = {
    [PRODUCER_BEGIN] = "producer_begin",
    [PRODUCER_INSERT] = "producer_insert",
    [PRODUCER_COMMIT] = "producer_commit",
    [PRODUCER_ROLLBACK] = "producer_rollback",
    [STRANGER_LOCKS] = "stranger_locks",
    [STRANGER_LETS_GO] = "stranger_lets_go",
    [TIME_PASSES] = "becomes due",
    [SOURCE_PROMOTES] = "source_claim: promotes",
    [PROMOTE_COMMITS] = "source_claim: promotion is there",
    [SOURCE_TAKE_LANES] = "source_claim: lanes",
    [SOURCE_CLAIM_READS] = "source_claim: snapshot",
    [SOURCE_CLAIM_LOCKS] = "source_claim: row locks",
    [PUBLISH_CONFIRMED] = "backend_publish: confirmed",
    [PUBLISH_REFUSED] = "backend_publish: refused",
    [PUBLISH_LOST] = "backend_publish: session lost",
    [PUBLISH_LOST_MOVES] = "backend_publish: lost, to wait",
    [BROKER_TAKES] = "broker takes it after all",
    [SOURCE_SETTLE] = "source_settle",
    [SOURCE_COMMIT] = "source_commit",
    [COMMIT_LOST] = "source_commit: lost, undone",
    [SOURCE_LOST] = "source lost, unnoticed",
    [CRASH] = "crash",
    [MARK_HIGHEST] = "mark: reads highest seq",
    [MARK_XID] = "mark: takes xid",
    [MARK_LEARN] = "mark: learns",
};

static const char *const place_names[] = {
    [ROW_ABSENT] = "absent",     [ROW_BEGUN] = "begun",        [ROW_UNCOMMITTED] = "uncommitted",
    [ROW_MESSAGE] = "message",   [ROW_WAITING] = "waiting",    [ROW_DUE] = "due",
    [ROW_DELETED] = "deleted",   [ROW_ROLLED_BACK] = "undone", [ROW_DELAYED] = "delayed",
    [ROW_PROMOTED] = "promoted",
};

/* Rows are called by their key and their place among its rows: a1, a2, b1. */
static void print_row_name(FILE *out, const struct config *config, unsigned row)
{
    unsigned number = 1;
    for (unsigned other = 0; other < row; other++) {
        number += config->key_of_row[other] == config->key_of_row[row];
    }
    (void)fprintf(out, "%c%u", 'a' + config->key_of_row[row], number);
}

static void print_set(FILE *out, const struct config *config, const char *title, unsigned rows)
{
    (void)fprintf(out, "%s", rows != 0 ? title : "");
    for (unsigned row = 0; row < config->rows; row++) {
        if (rows & bit(row)) {
            (void)fputc(' ', out);
            print_row_name(out, config, row);
        }
    }
}

static void print_lanes(FILE *out, unsigned lanes)
{
    (void)fprintf(out, "%s", lanes != 0 ? "  lanes" : "");
    for (unsigned lane = 0; lane < KEYS_MAX; lane++) {
        if (lanes & bit(lane)) {
            (void)fprintf(out, " %u", lane);
        }
    }
}

static void print_row(FILE *out, const struct config *config, const struct state *state, unsigned row)
{
    const struct row *shown = &state->rows[row];
    (void)fprintf(out, "  ");
    print_row_name(out, config, row);
    (void)fprintf(out, "#%u %s", shown->seq, place_names[shown->place]);
    if (shown->xid != 0) {
        (void)fprintf(out, " xid %u", shown->xid);
    }
    if (shown->locker == LOCKER_STRANGER) {
        (void)fprintf(out, " (stranger)");
    } else if (shown->locker != LOCKER_NONE) {
        (void)fprintf(out, " (worker %u)", shown->locker);
    }
}

static bool is_of_a_row(unsigned what)
{
    return what <= SOURCE_PROMOTES || what == PUBLISH_CONFIRMED || what == PUBLISH_REFUSED ||
           what == BROKER_TAKES;
}

static bool is_of_a_worker(unsigned what)
{
    return what >= SOURCE_PROMOTES && what <= CRASH && what != BROKER_TAKES;
}

void print_step(FILE *out, const struct config *config, const struct step *step, const struct state *after)
{
    const struct worker *worker = &after->workers[step->who];
    if (is_of_a_worker(step->what)) {
        (void)fprintf(out, "worker %u  ", step->who + 1U);
    } else {
        (void)fprintf(out, "          ");
    }
    (void)fprintf(out, "%-30s", step_names[step->what]);
    if (is_of_a_row(step->what)) {
        print_row_name(out, config, step->row);
    } else {
        (void)fprintf(out, "  ");
    }
    (void)fprintf(out, " |");
    for (unsigned row = 0; row < config->rows; row++) {
        if (after->rows[row].place != ROW_ABSENT) {
            print_row(out, config, after, row);
        }
    }
    if (is_of_a_worker(step->what)) {
        print_lanes(out, worker->lanes);
        print_set(out, config, "  reads", worker->read_message | worker->read_due);
        print_set(out, config, "  batch", worker->batch);
    }
    print_set(out, config, "  delivered", after->delivered);
    if (after->mark != 0 || step->what >= MARK_HIGHEST) {
        (void)fprintf(out, "  C %u X %u mark %u", after->mark_highest, after->mark_xid, after->mark);
    }
    (void)fputc('\n', out);
}

/* ---- the program ---- */

static bool is_wanted(const char *name, int count, char **names)
{
    for (int at = 0; at < count; at++) {
        if (strcmp(names[at], name) == 0) {
            return true;
        }
    }
    return count == 0;
}

int main(int argc, char **argv)
{
    size_t searched = 0;
    for (size_t at = 0; at < sizeof configs / sizeof configs[0]; at++) {
        if (is_wanted(configs[at].name, argc - 1, argv + 1)) {
            enum search_result result = search_run(&configs[at], stdout);
            if (result != SEARCH_HOLDS) {
                return (int)result;
            }
            searched++;
        }
    }
    return searched > 0 ? SEARCH_HOLDS : SEARCH_NOT_EXHAUSTIVE;
}
