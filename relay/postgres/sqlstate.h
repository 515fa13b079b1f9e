/* sqlstate - what PostgreSQL's error codes (manual, appendix A) mean for the relay. Pure. */
#ifndef RELAY_SQLSTATE_H
#define RELAY_SQLSTATE_H

#include "base/err.h"

/* The class of a five-character SQLSTATE; ERR_INTERNAL for what no table row names. */
enum err_class sqlstate_class(const char *sqlstate);

#endif
