/*
 * suspect - per process: after a session was lost in the middle of a batch, one of its rows may be why. One
 * worker sends one row at a time, for as many rows as the lost batch had, while the others wait; then all
 * return to normal.
 */
#ifndef RELAY_SUSPECT_H
#define RELAY_SUSPECT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum suspect_answer { SUSPECT_NONE = 0, SUSPECT_SINGLE, SUSPECT_WAIT };

struct suspect {
    pthread_mutex_t lock;
    size_t remaining; /* 0 = normal */
    int prober;       /* -1 = the next who asks */
    int64_t cursor;   /* last seq tried: the next single lies behind it, so that one bad row stops nobody */
};

void suspect_init(struct suspect *suspect);
void suspect_finish(struct suspect *suspect);

void suspect_begin(struct suspect *suspect, size_t rows);

/* must_probe: this worker is the breaker's prober, nobody else may send. *after_seq is set with
 * SUSPECT_SINGLE. */
enum suspect_answer suspect_ask(struct suspect *suspect, int worker, bool must_probe, int64_t *after_seq);

/* The single `seq` was tried; 0 = there was none left. True if that ended the mode. */
bool suspect_tried(struct suspect *suspect, int worker, int64_t seq);

/* The worker goes; another may probe. */
void suspect_abandon(struct suspect *suspect, int worker);

#endif
