/*
 * suspect - per process: after a session was lost in the middle of a batch, one of its rows may be why. These
 * rows are then sent one at a time, by one worker, while the others wait; then all return to normal. Who
 * ended its session alone is tried once more after the others: by then there may be evidence that the
 * destination works.
 */
#ifndef RELAY_SUSPECT_H
#define RELAY_SUSPECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SUSPECT_MAX_ROWS = 10000, SUSPECT_MAX_WORKERS = 64 };

enum suspect_answer { SUSPECT_NONE = 0, SUSPECT_SINGLE, SUSPECT_WAIT };

struct suspect {
    pthread_mutex_t lock;
    int64_t seqs[SUSPECT_MAX_ROWS]; /* [next, count) are to be tried */
    size_t next;
    size_t count;
    int64_t again[SUSPECT_MAX_ROWS]; /* ended a session alone, once */
    size_t again_count;
    bool second_round;
    int prober;       /* -1 = the next who asks */
    uint64_t at_work; /* bit per worker: it claims, or holds what it claimed, beside this mode */
};

void suspect_init(struct suspect *suspect);
void suspect_finish(struct suspect *suspect);

/* The rows that were in flight, by seq; what does not fit into the list is left to luck. */
void suspect_begin(struct suspect *suspect, const int64_t *seqs, size_t count);

/*
 * What may a worker with a session claim? NONE: what it likes; it counts as at work until suspect_let_go().
 * SINGLE: the row *seq alone; not before all who began to claim before the loss was known have let go.
 * must_probe: this worker is the breaker's prober, nobody else may send.
 */
enum suspect_answer suspect_ask(struct suspect *suspect, int worker, bool must_probe, int64_t *seq);

/* Is this row still to be tried alone? */
bool suspect_includes(struct suspect *suspect, int64_t seq);

/* The worker holds no batch any more. True if others may wait for that. */
bool suspect_let_go(struct suspect *suspect, int worker);

/*
 * The single `seq` was tried, or was not there; died: the session ended with it, whatever became of the row.
 * True if that ended the mode.
 */
bool suspect_tried(struct suspect *suspect, int worker, int64_t seq, bool died);

/* The worker goes; another may probe. True if others may wait for that. */
bool suspect_abandon(struct suspect *suspect, int worker);

#endif
