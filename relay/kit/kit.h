/*
 * kit - the conformance kit: does a backend keep what outbox_backend.h says? Needs no database.
 *
 * Each test runs in a process of its own, begun anew, and is judged from outside, by what the backend does.
 * Output is TAP 14.
 */
#ifndef RELAY_KIT_H
#define RELAY_KIT_H

#include <stdio.h>

#include "base/log.h"
#include "base/option.h"
#include "outbox_backend.h"

struct kit_options {
    const struct outbox_backend *table;
    struct option_set *settings;   /* of a destination that works */
    const char *place;             /* "built in", or the file */
    const char *proxy_option;      /* the option that holds host:port; NULL = no faults in between */
    const char *proxy_port_option; /* the one that holds the port, where the former holds the host alone */
    unsigned proxy_port;           /* where the proxy listens; 0 = anywhere */
    const char *refusing;          /* "KEY=VALUE": with it, the destination refuses; NULL = not known */
    const char *only;              /* a number, or a part of a name; NULL = all of them */
    char *const *argv;             /* begins this program anew, up to kit_run_in_child() */
};

enum kit_verdict { KIT_CONFORMANT, KIT_PARTIAL, KIT_NOT_CONFORMANT };

/* Numbers and names of all tests. */
void kit_list(FILE *out);

/* To be called before a backend is loaded: what that changes in the process is seen. */
void kit_before_load(void);

/* To be called as soon as the options are known: in a process that kit_run() has begun, runs its test and
 * does not return. */
void kit_run_in_child(const struct kit_options *options);

/* Whether `refusing` and `proxy_option` can be done with the settings. ERR_USAGE */
int kit_check_options(const struct kit_options *options, struct err *err) MUST_CHECK;

/* -1: the kit itself could not run. ERR_USAGE: `only` names no test. */
int kit_run(const struct kit_options *options, FILE *out, enum kit_verdict *verdict,
            struct err *err) MUST_CHECK;

#endif
