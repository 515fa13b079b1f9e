/* source_row - the columns of a claim as rows of a batch; `explain` reads one message in the same columns. */
#ifndef RELAY_SOURCE_ROW_H
#define RELAY_SOURCE_ROW_H

#include "message/batch.h"
#include "postgres/pg.h"

/*
 * The rows, in binary format, become rows of the batch, which owns them from now on, also after -1.
 * max_message_bytes: the bound that the statement was given, for the reason of those it did not load.
 */
int source_read_rows(struct batch *batch, struct pg_rows *rows, int64_t max_message_bytes,
                     struct err *err) MUST_CHECK;

#endif
