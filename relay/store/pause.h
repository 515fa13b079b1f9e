/* pause - the operator's pauses: of a channel, of those that a pattern with * and ? matches, or of all ("*").
 * Relays see them with their next claim. */
#ifndef RELAY_PAUSE_H
#define RELAY_PAUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "postgres/pg.h"

/* for_ms: ends by itself; -1 = never. reason may be NULL. A pause that is there already is replaced. */
int pause_set(struct pg *pg, const char *scope, int64_t for_ms, const char *reason,
              struct err *err) MUST_CHECK;

/* *was_paused: false if there was nothing to end. */
int pause_end(struct pg *pg, const char *scope, bool *was_paused, struct err *err) MUST_CHECK;

/* *known: does it concern a message that is here? in_force: the names of all pauses, for people, "" = none.
 */
int pause_known(struct pg *pg, const char *scope, bool *known, struct text *in_force,
                struct err *err) MUST_CHECK;

/*
 * Which claims are in flight that began before now, hence may not know of a pause: a text[] literal of
 * transactions for pause_still_in_flight().
 */
int pause_in_flight(struct pg *pg, struct text *transactions, struct err *err) MUST_CHECK;
int pause_still_in_flight(struct pg *pg, const char *transactions, int64_t *count,
                          struct err *err) MUST_CHECK;

#endif
