/*
 * worker - one thread, one database connection, one session to the broker, and the loop that the product
 * consists of.
 */
#ifndef RELAY_WORKER_H
#define RELAY_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/wake.h"
#include "channels/channels.h"
#include "machine/breaker.h"
#include "machine/health.h"
#include "machine/suspect.h"
#include "machine/verdict.h"
#include "machine/watchdog.h"
#include "plugin/backend.h"
#include "store/mark.h"
#include "store/source.h"

struct worker_options {
    struct source_options source;
    struct verdict_rules rules;
    size_t batch_messages;
    int64_t poll_min_ms;
    int64_t poll_max_ms;
    int64_t publish_timeout_ms;
    int64_t retry_min_ms;
    int64_t retry_max_ms;
    int64_t reconnect_max_ms;
};

/* What producers and receivers bring about, and the log tells so often and no more. */
enum told { TOLD_REST, TOLD_GOES_ON, TOLD_BURIAL, TOLD_KINDS };

/* What the workers of a process share; everything in it has its own lock or is constant. */
struct shared {
    struct worker_options options;
    struct backend *backend;
    struct wake *wake;
    struct watchdog watchdog;
    struct breaker breaker;
    struct suspect suspect;
    struct channels *channels;
    struct health health;
    struct metrics metrics;
    struct mark mark;
    struct promotion promotion;
    struct caution caution;
    const struct log *log;
    struct log_quota told[TOLD_KINDS];
    _Atomic int64_t budget;            /* messages that may still be claimed (drain --max-messages) */
    _Atomic int64_t next_scheduled_ms; /* when to look into outbox.scheduled again */
    _Atomic int64_t last_claim_ms;     /* when a claim last returned rows */
    _Atomic int64_t doubt_until_ms;    /* a COMMIT had no answer: that claims work proves nothing */
    _Atomic int64_t rows_stayed_ms;    /* when rows were last kept from leaving; 0 = never */
    atomic_uint working;               /* workers with a batch in hand */
    atomic_uint empty_claims;          /* claims and looks that found nothing, ever */
    _Atomic uint64_t paused;           /* hash of the pauses that were last told; 0 = none were */
};

struct worker;

/* Starts the thread. *out is the caller's. */
int worker_start(struct worker **out, struct shared *shared, int number, struct err *err) MUST_CHECK;

/* For how long it has made no progress. Any thread. */
int64_t worker_silent_ms(const struct worker *worker, int64_t now_ms);

/* Waits for the end of the thread, until the deadline; false if it still runs (it is then leaked on purpose).
 */
bool worker_join(struct worker *worker, int64_t deadline_ms);

#endif
