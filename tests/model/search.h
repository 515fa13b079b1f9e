/* search - visits every state that a configuration can reach, breadth first, so that a counterexample is a
 * shortest one. */
#ifndef SEARCH_H
#define SEARCH_H

#include <stdio.h>

#include "model.h"

enum search_result { SEARCH_HOLDS, SEARCH_FOUND, SEARCH_NOT_EXHAUSTIVE };

/* Prints what it found: the size of what holds, the steps to what does not, or why it could not look at
 * everything. */
enum search_result search_run(const struct config *config, FILE *out);

#endif
