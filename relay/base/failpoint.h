/*
 * failpoint - places at which a test build fails on demand; nothing of it is in a release build.
 *
 * RELAY_FAIL=POINT:ACTION[:N] in the environment; at the N-th time (default 1) that the point is reached:
 *   abort  SIGKILL, as if the machine had died       exit   _exit(99), with sockets closed by the kernel
 *   sleep  3 s, longer than the deadlines of a test  error  the step fails
 */
#ifndef RELAY_FAILPOINT_H
#define RELAY_FAILPOINT_H

#include <stdbool.h>

#ifdef RELAY_FAILPOINTS
/* True: the step is to fail. Any thread. */
bool failpoint(const char *point);
#else
static inline bool failpoint(const char *point)
{
    (void)point;
    return false;
}
#endif

#endif
