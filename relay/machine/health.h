/* health - what is wrong now, as the workers see it: for drain, the ledger, status and the log. */
#ifndef RELAY_HEALTH_H
#define RELAY_HEALTH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum health_part { HEALTH_DATABASE = 0, HEALTH_BACKEND, HEALTH_PARTS };

struct health_view {
    struct err last;        /* the last failure; ERR_NONE after a success */
    int64_t failing_for_ms; /* since the first failure without a success in between; 0 = it works */
};

struct health {
    pthread_mutex_t lock;
    struct {
        struct err last;
        int64_t failing_since_ms; /* 0 = it works */
    } part[HEALTH_PARTS];
};

void health_init(struct health *health);
void health_finish(struct health *health);

/* Each returns true when it is news: worth a line in the log. */
bool health_failed(struct health *health, enum health_part part, const struct err *err, int64_t now_ms);
bool health_works(struct health *health, enum health_part part);

void health_look(struct health *health, enum health_part part, int64_t now_ms, struct health_view *view);

#endif
