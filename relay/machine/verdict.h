/*
 * verdict - turns what a backend said about each message into what the transaction does with its row.
 *
 * This is the product's specification in one function; design.md section 4 is its table. Attempts count only
 * against evidence that the destination works: a message of the same channel was confirmed since this row was
 * last tried.
 */
#ifndef RELAY_VERDICT_H
#define RELAY_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/backoff.h"
#include "base/log.h"
#include "machine/channels.h"
#include "message/batch.h"

struct verdict_rules {
    uint32_t max_attempts;    /* 0 = never give up */
    int64_t give_up_after_ms; /* 0 = never */
};

struct verdict_context {
    const struct verdict_rules *rules;
    struct channels *channels;
    struct backoff *backoff; /* retry.backoff_min .. backoff_max */
    const struct log *log;
    int64_t began_ms; /* when publishing began */
    int64_t now_ms;
    const char *loss; /* why the session was lost; NULL = it was not */
    bool single;      /* suspect mode: a refusal without evidence must not stop the channel's other rows */
};

struct tally {
    size_t confirmed;
    size_t held;
    size_t retried;
    size_t buried;
    size_t unsettled;
    uint64_t payload_bytes; /* of the confirmed */
    int64_t next_due_ms;    /* shortest wait of the retried; -1 = none */
};

void verdict_decide(struct batch *batch, const struct verdict_context *context, struct tally *tally);

#endif
