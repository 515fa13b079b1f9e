/* sqlstate - what PostgreSQL's error codes (manual, appendix A) mean for the relay. Pure. */
#ifndef RELAY_SQLSTATE_H
#define RELAY_SQLSTATE_H

#include <stdbool.h>

#include "base/err.h"

/* The class of a five-character SQLSTATE; ERR_INTERNAL for what no table row names. */
enum err_class sqlstate_class(const char *sqlstate);

/* What mends it, to be told behind the server's own text; "" where that is enough. foreign: the server was
 * within a function that is not the outbox's. */
const char *sqlstate_advice(const char *sqlstate, const char *message, bool foreign);

#endif
