/* scaffold - writes the project that an author of a backend begins with. */
#ifndef RELAY_SCAFFOLD_H
#define RELAY_SCAFFOLD_H

#include "base/err.h"

/* Makes directory `name` below the working directory, which must not exist; name is a C identifier in lower
 * case. */
int scaffold_write(const char *name, struct err *err) MUST_CHECK;

#endif
