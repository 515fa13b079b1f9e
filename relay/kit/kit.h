/*
 * kit - the conformance kit: does a backend keep what outbox_backend.h says? Needs no database.
 *
 * Each test runs in a process of its own and is judged from outside, by what the backend does. Output is
 * TAP 14.
 */
#ifndef RELAY_KIT_H
#define RELAY_KIT_H

#include <stdio.h>

#include "base/log.h"
#include "base/option.h"
#include "outbox_backend.h"

struct kit_options {
    const struct outbox_backend *table;
    struct option_set *settings; /* of a destination that works */
    const char *place;           /* "built in", or the file */
    const char *proxy_option;    /* the option that holds host:port; NULL = no faults in between */
    const struct log *log;       /* for what the backend logs */
};

enum kit_verdict { KIT_CONFORMANT, KIT_PARTIAL, KIT_NOT_CONFORMANT };

/* Only while the process has one thread: it forks. -1: the kit itself could not run. */
int kit_run(const struct kit_options *options, FILE *out, enum kit_verdict *verdict,
            struct err *err) MUST_CHECK;

#endif
