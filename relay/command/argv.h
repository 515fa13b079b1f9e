/*
 * argv - the command line for our own use, and the process's without what may be secret.
 *
 * Every user of a host reads the command lines of all processes (proc(5), /proc/PID/cmdline).
 */
#ifndef RELAY_ARGV_H
#define RELAY_ARGV_H

#include "base/err.h"

/* A copy, NULL at its end, that argv_free() frees; in the original, what stands behind "=" or "://" is
 * overwritten. NULL and ERR_INTERNAL if memory is short. */
char **argv_take(int argc, char **argv, struct err *err) MUST_CHECK;

/* Overwrites and frees a copy; accepts NULL. */
void argv_free(char **copy);

#endif
