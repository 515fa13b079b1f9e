#include "search.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STATES_MAX = 12000000 };
#define NONE UINT32_MAX /* no node */

struct node {
    struct state state;
    uint32_t parent;
    uint32_t calm;    /* where its first calm step leads; NONE = there is none */
    struct step step; /* from the parent */
    struct step calm_step;
};

struct search {
    const struct config *config;
    struct node *nodes; /* in the order of their discovery */
    uint32_t count;
    uint32_t capacity;
    uint32_t *slots; /* hash set of indices + 1; 0 = free */
    uint32_t slot_count;
    uint32_t from; /* the node whose steps are being taken */
    uint32_t depth;
    uint64_t moves;
    struct move broken; /* the first violation: a step out of `from` */
    const char *failure;
};

/* ---- the set of visited states ---- */

static uint32_t hash(const struct state *state)
{
    uint64_t words[sizeof *state / sizeof(uint64_t)];
    uint64_t sum = 0;
    memcpy(words, state, sizeof words);
    for (size_t at = 0; at < sizeof words / sizeof words[0]; at++) {
        sum = (sum ^ words[at]) * 0x9e3779b97f4a7c15U;
        sum ^= sum >> 32;
    }
    return (uint32_t)sum;
}

/* The slot that holds `state`, or the free one where it belongs. */
static uint32_t *find_slot(struct search *search, const struct state *state)
{
    uint32_t mask = search->slot_count - 1;
    for (uint32_t at = hash(state) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &search->slots[at];
        if (*slot == 0 || memcmp(&search->nodes[*slot - 1].state, state, sizeof *state) == 0) {
            return slot;
        }
    }
}

static bool grow(struct search *search)
{
    uint32_t capacity = search->capacity > 0 ? search->capacity * 2 : 1U << 16;
    struct node *nodes = realloc(search->nodes, capacity * sizeof *nodes);
    if (!nodes) {
        search->failure = "out of memory";
        return false;
    }
    search->nodes = nodes;
    search->capacity = capacity;
    free(search->slots);
    search->slot_count = capacity * 2;
    search->slots = calloc(search->slot_count, sizeof *search->slots);
    if (!search->slots) {
        search->failure = "out of memory";
        return false;
    }
    for (uint32_t at = 0; at < search->count; at++) {
        *find_slot(search, &nodes[at].state) = at + 1;
    }
    return true;
}

/* The node of a state, new or known; NONE = the search has failed. */
static uint32_t intern(struct search *search, const struct move *move, bool *is_new)
{
    if (search->count == search->capacity && !grow(search)) {
        return NONE;
    }
    uint32_t *slot = find_slot(search, &move->after);
    *is_new = *slot == 0;
    if (*is_new) {
        if (search->count == STATES_MAX) {
            search->failure = "more states than STATES_MAX";
            return NONE;
        }
        search->nodes[search->count] =
            (struct node){.state = move->after, .parent = search->from, .calm = NONE, .step = move->step};
        *slot = ++search->count;
    }
    return *slot - 1;
}

void search_add(struct search *search, const struct move *move)
{
    bool is_new = false;
    if (search->broken.violation || search->failure) {
        return;
    }
    search->moves++;
    uint32_t node = intern(search, move, &is_new);
    if (node == NONE) {
        return;
    }
    const char *violation =
        is_new && !move->violation ? model_check(search->config, &move->after) : move->violation;
    if (violation) {
        search->broken = *move;
        search->broken.violation = violation;
    }
    if (move->step.calm && search->nodes[search->from].calm == NONE) {
        search->nodes[search->from].calm = node;
        search->nodes[search->from].calm_step = move->step;
    }
}

/* ---- counterexamples ---- */

static void print_numbered(const struct search *search, unsigned *number, const struct step *step,
                           const struct state *after, FILE *out)
{
    (void)fprintf(out, "%4u  ", ++*number);
    print_step(out, search->config, step, after);
}

static void print_path(const struct search *search, uint32_t node, unsigned *number, FILE *out)
{
    if (node != 0) {
        print_path(search, search->nodes[node].parent, number, out);
        print_numbered(search, number, &search->nodes[node].step, &search->nodes[node].state, out);
    }
}

static void print_violation(const struct search *search, const char *violation, FILE *out)
{
    (void)fprintf(out, "%s: configuration '%s' violates %s\n", model_design, search->config->name, violation);
}

static void print_end(const struct search *search, unsigned steps, FILE *out)
{
    (void)fprintf(out, "counterexample of %u steps, %u states visited\n", steps, search->count);
}

static void print_broken(const struct search *search, FILE *out)
{
    unsigned steps = 0;
    print_violation(search, search->broken.violation, out);
    print_path(search, search->from, &steps, out);
    print_numbered(search, &steps, &search->broken.step, &search->broken.after, out);
    print_end(search, steps, out);
}

/* ---- from every state, calm must get everything done ---- */

enum calm { CALM_UNKNOWN, CALM_WALKED, CALM_GETS_DONE };

/* Follows the calm steps from `node`: to where it is known that all gets done (true), or to a circle or a
 * dead end. */
static bool walk(const struct search *search, uint32_t node, unsigned char *calm, uint32_t *end)
{
    while (calm[node] == CALM_UNKNOWN && !model_is_done(search->config, &search->nodes[node].state)) {
        calm[node] = CALM_WALKED;
        if (search->nodes[node].calm == NONE) {
            break;
        }
        node = search->nodes[node].calm;
    }
    *end = node;
    return calm[node] != CALM_WALKED;
}

static void print_never_done(const struct search *search, uint32_t node, uint32_t end, FILE *out)
{
    unsigned steps = 0;
    print_violation(search, model_blame(search->config, &search->nodes[end].state), out);
    print_path(search, node, &steps, out);
    (void)fprintf(out, "      and if nothing else goes wrong:\n");
    for (bool again = false; search->nodes[node].calm != NONE && !(node == end && again);
         node = search->nodes[node].calm) {
        again = again || node == end;
        print_numbered(search, &steps, &search->nodes[node].calm_step,
                       &search->nodes[search->nodes[node].calm].state, out);
    }
    (void)fprintf(out, "      %s\n",
                  search->nodes[node].calm == NONE ? "nothing more can happen" : "and so on for ever");
    print_end(search, steps, out);
}

static bool all_get_done(struct search *search, FILE *out)
{
    unsigned char *calm = calloc(search->count, 1);
    bool done = calm != NULL;
    search->failure = calm ? NULL : "out of memory";
    for (uint32_t from = 0; from < search->count && done; from++) {
        uint32_t end = from;
        done = walk(search, from, calm, &end);
        if (!done) {
            print_never_done(search, from, end, out);
        }
        calm[end] = CALM_GETS_DONE;
        for (uint32_t at = from; done && calm[at] == CALM_WALKED; at = search->nodes[at].calm) {
            calm[at] = CALM_GETS_DONE;
        }
    }
    free(calm);
    return done;
}

/* ---- the search ---- */

/* Breadth first: nodes are expanded in the order of their discovery. */
static void visit_all(struct search *search)
{
    struct move begin = {0};
    bool is_new = false;
    world_begin(search->config, &begin.after);
    (void)intern(search, &begin, &is_new);
    uint32_t level_ends = 1;
    for (; search->from < search->count && !search->failure && !search->broken.violation; search->from++) {
        if (search->from == level_ends) {
            level_ends = search->count;
            search->depth++;
        }
        const struct state before =
            search->nodes[search->from].state; /* the nodes move as their number grows */
        model_steps(&(struct scene){search->config, &before, search});
    }
}

enum search_result search_run(const struct config *config, FILE *out)
{
    struct search search = {.config = config};
    enum search_result result = SEARCH_HOLDS;
    clock_t began = clock();
    visit_all(&search);
    if (search.broken.violation) {
        search.from--; /* the loop had gone on */
        print_broken(&search, out);
        result = SEARCH_FOUND;
    } else if (!search.failure && !all_get_done(&search, out)) {
        result = SEARCH_FOUND;
    }
    if (search.failure) {
        (void)fprintf(out, "%s: configuration '%s' was NOT searched to its end, and proves nothing: %s\n",
                      model_design, config->name, search.failure);
        result = SEARCH_NOT_EXHAUSTIVE;
    } else if (result == SEARCH_HOLDS) {
        size_t bytes = search.capacity * sizeof *search.nodes + search.slot_count * sizeof *search.slots;
        (void)fprintf(out, "%s: %-22s holds: %8u states, %9llu steps, depth %u, %u MiB, %.1f s\n",
                      model_design, config->name, search.count, (unsigned long long)search.moves,
                      search.depth, (unsigned)(bytes >> 20), (double)(clock() - began) / CLOCKS_PER_SEC);
    }
    free(search.nodes);
    free(search.slots);
    return result;
}
