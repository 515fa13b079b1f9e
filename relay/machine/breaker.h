/*
 * breaker - per process: after several failures in a row to connect or confirm, or when the broker asks for a
 * pause, nobody claims. One prober tries again after a backoff; half-open lets one message through.
 *
 * Pure but for its lock: time is handed in.
 */
#ifndef RELAY_BREAKER_H
#define RELAY_BREAKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/backoff.h"

enum breaker_state { BREAKER_CLOSED = 0, BREAKER_OPEN, BREAKER_HALF_OPEN };

enum breaker_answer {
    BREAKER_WAIT = 0, /* until the time given */
    BREAKER_PASS,
    BREAKER_PROBE /* you are the prober: one message only */
};

struct breaker {
    pthread_mutex_t lock;
    enum breaker_state state;
    unsigned failures_allowed;
    unsigned failures;
    int prober; /* worker number while half-open */
    bool busy;  /* open because the broker asked for a pause */
    int64_t until_ms;
    int64_t since_ms;
    struct backoff backoff;
    char reason[600];
};

/* A copy for people. */
struct breaker_view {
    enum breaker_state state;
    int64_t next_try_in_ms;
    int64_t for_ms;
    char reason[600];
};

void breaker_init(struct breaker *breaker, unsigned failures_allowed, int64_t open_min_ms,
                  int64_t open_max_ms, int64_t now_ms);
void breaker_finish(struct breaker *breaker);

enum breaker_answer breaker_ask(struct breaker *breaker, int worker, int64_t now_ms, int64_t *wait_until_ms);

/* Each returns true if that changed the state. */
bool breaker_succeeded(struct breaker *breaker, int64_t now_ms);
bool breaker_failed(struct breaker *breaker, const char *reason, int64_t now_ms);
bool breaker_busy(struct breaker *breaker, const char *reason, int64_t retry_after_ms, int64_t now_ms);

/* The session that asked for the pause says that it is over. */
bool breaker_pause_over(struct breaker *breaker, int64_t now_ms);

/* The prober goes without an answer (it stops, or lost its database): somebody else may probe. */
void breaker_abandon(struct breaker *breaker, int worker);

void breaker_look(struct breaker *breaker, int64_t now_ms, struct breaker_view *view);
#endif
