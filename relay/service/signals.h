/*
 * signals - one thread waits for them, all others have them blocked: TERM and INT stop, a second one at once;
 * HUP and USR1 are handed to the program.
 */
#ifndef RELAY_SIGNALS_H
#define RELAY_SIGNALS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/wake.h"

struct signals {
    struct wake *wake;
    atomic_bool terminate; /* TERM or INT came */
    atomic_bool reload;    /* HUP came; whoever serves it clears it */
    atomic_bool dump;      /* USR1 came */
    atomic_bool done;
    pthread_t thread;
};

/* Before any other thread starts: it blocks the signals for all of them. SIGPIPE is ignored. */
int signals_start(struct signals *signals, struct wake *wake, struct err *err) MUST_CHECK;
void signals_finish(struct signals *signals);

#endif
