/*
 * lookup - is a host's name known? Within a deadline, and interruptible: getaddrinfo(3) is neither, and with
 * a name server that says nothing it takes half a minute. To be asked before a library asks, which can only
 * wait.
 */
#ifndef RELAY_LOOKUP_H
#define RELAY_LOOKUP_H

#include <stdint.h>

#include "base/err.h"

/* 0 when there is an answer, an address always; ERR_STOPPED when stop_fd (-1 = none) became readable, else
 * ERR_CONNECTION. */
int lookup_host(const char *name, int stop_fd, int64_t deadline_ms, struct err *err) MUST_CHECK;

#endif
