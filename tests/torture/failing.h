/*
 * failing - memory that runs short on demand, for all that allocates in this process: our objects and the
 * libraries. One thread only.
 */
#ifndef TORTURE_FAILING_H
#define TORTURE_FAILING_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum shortage { SHORT_ONCE, SHORT_FROM_THEN_ON };

/* One way through the code under test; calls failing_stop() before it judges what came out. */
typedef void torture_path(void);

/*
 * Walks the path without a shortage, then with the first allocation failing, the second, and so on until
 * there is none left to fail, each time once and, in a second round, together with all behind it. Reports
 * leaks.
 */
void torture(const char *name, torture_path *path);

/* Ends the shortage; true if an allocation failed. Without one, a path must succeed. */
bool failing_stop(void);

/* True in the first walk: what comes out is what is wanted. */
bool failing_is_first(void);

/* Says which allocation of which path it was, and dies. */
_Noreturn void torture_broken(const char *file, int line, const char *what);

#define PROMISE(condition, what)                                                                             \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            torture_broken(__FILE__, __LINE__, (what));                                                      \
        }                                                                                                    \
    } while (0)

#endif
