/*
 * settle - carries out the fates of a batch: deletes what was confirmed, moves what waits or is dead.
 *
 * Confirmed rows first, so that a move that fails cannot bring them back: moves follow under a savepoint of
 * their own. Where the deletion itself was refused before, it is made with care, under savepoints, too.
 */
#ifndef RELAY_SETTLE_H
#define RELAY_SETTLE_H

#include <stdint.h>

#include "base/log.h"
#include "message/batch.h"
#include "postgres/pg.h"

/* One of the rows is why: not a lock, not a shortage, not the connection. */
bool settle_blames_row(const struct err *why);

/*
 * Without moves only queues the DELETE, to share the round trip of the COMMIT; with moves, or where
 * settled->careful is set, it runs the statements. What the server refuses then is logged.
 */
int settle_batch(struct pg *pg, const struct batch *batch, const char *backend, int64_t deadline_ms,
                 const struct log *log, struct settled *settled, struct err *err) MUST_CHECK;

/* Reads the answers of what settle_batch() queued. */
int settle_answers(struct pg *pg, const struct batch *batch, int64_t deadline_ms, struct settled *settled,
                   struct err *err) MUST_CHECK;

#endif
