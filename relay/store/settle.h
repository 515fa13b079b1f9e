/*
 * settle - carries out the fates of a batch: deletes what was confirmed, moves what waits or is dead.
 *
 * Confirmed rows first, so that a move that fails cannot bring them back: moves follow under a savepoint of
 * their own.
 */
#ifndef RELAY_SETTLE_H
#define RELAY_SETTLE_H

#include <stdint.h>

#include "base/log.h"
#include "message/batch.h"
#include "postgres/pg.h"

/*
 * Without moves only queues the DELETE, to share the round trip of the COMMIT; with moves it runs the
 * statements. A move that the server refuses is logged.
 */
int settle_batch(struct pg *pg, const struct batch *batch, const char *backend, int64_t deadline_ms,
                 const struct log *log, struct settled *settled, struct err *err) MUST_CHECK;

/* Reads the answers of what settle_batch() queued. */
int settle_answers(struct pg *pg, const struct batch *batch, int64_t deadline_ms, struct settled *settled,
                   struct err *err) MUST_CHECK;

#endif
