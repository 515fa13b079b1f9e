/*
 * ledger - this process's row in outbox.relay, so that `status` needs the database alone. Written on a change
 * of state and every 10 s, over a connection of its own; a database that is away costs nothing but the row's
 * freshness.
 */
#ifndef RELAY_LEDGER_H
#define RELAY_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"

struct ledger;

struct ledger_options {
    const char *conninfo;
    const char *client_name;
    const char *instance;
    const char *backend;
    int stop_fd;
    const struct log *log;
};

struct ledger_entry {
    const char *state;  /* starting, running, blocked, stopping */
    const char *reason; /* NULL = none */
    const char *holds;  /* JSON array of channels on hold */
    uint64_t held;      /* a hash of that without its times */
    const char *last_error;
    int64_t next_try_in_ms; /* -1 = none */
};

int ledger_new(struct ledger **out, const struct ledger_options *options, struct err *err) MUST_CHECK;

/* Writes if something changed or 10 s have passed; connects again, at most every 5 s, if need be. */
void ledger_write(struct ledger *ledger, const struct ledger_entry *entry);

/* Looks for strangers who stand in the way (inspect.h), as often as the row is written, and warns of what is
 * new. */
void ledger_look_around(struct ledger *ledger);

/* Did the database take what was last written? */
bool ledger_is_connected(const struct ledger *ledger);

/* Removes the row: a clean end. Accepts NULL. */
void ledger_free(struct ledger *ledger);

#endif
