/* explain - one message, wherever it stands, for people. */
#ifndef RELAY_EXPLAIN_H
#define RELAY_EXPLAIN_H

#include <stdbool.h>

#include "base/err.h"
#include "message/batch.h"
#include "postgres/pg.h"

/* Where it stands and what it waits for. */
struct explain_place {
    char table[64];
    char waits[1200]; /* sentences; "" = for nothing */
};

/* Reads the message into an empty batch of one; *found is false if there is none of that id (a UUID). Locks
 * nothing. */
int explain_find(struct pg *pg, const char *id, struct batch *batch, struct explain_place *place, bool *found,
                 struct err *err) MUST_CHECK;

#endif
