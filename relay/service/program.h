/* program - puts the machine together from the configuration; shared by run and drain. */
#ifndef RELAY_PROGRAM_H
#define RELAY_PROGRAM_H

#include <stdbool.h>

#include "base/log.h"
#include "base/wake.h"
#include "config/config.h"
#include "machine/pool.h"
#include "plugin/backend.h"
#include "postgres/pg.h"
#include "service/signals.h"
#include "store/ledger.h"

struct program {
    struct config config;
    struct log log;
    char instance[300];
    char client_name[320];
    struct text include; /* text[] literals of LIKE patterns; empty = no filter */
    struct text exclude;
    struct backend *backend;
    struct wake wake;
    struct signals signals;
    struct pool *pool;
    struct ledger *ledger;
    bool told_of_stuck;
    bool told_of_clear_text;
    bool has_wake;
    bool has_signals;
};

/*
 * Configuration (taken over from *config), log, names; from here on signals ask for a stop. program_finish()
 * either way.
 */
int program_init(struct program *program, struct config *config, struct err *err) MUST_CHECK;

/* Opens the backend: reads and checks its settings, without a network. */
int program_open(struct program *program, struct err *err) MUST_CHECK;

/* Starts ledger and workers, after program_open(); hasty: somebody waits for the end. */
int program_start(struct program *program, int64_t budget, bool hasty, struct err *err) MUST_CHECK;

/* Asks for a stop and ends everything; false if something had to be let go of: then _exit(70). */
bool program_stop(struct program *program);
void program_finish(struct program *program);

/* order: key */
bool program_is_ordered(const struct program *program);

/* The channels of the configuration as text[] literals of LIKE patterns; NULL = no filter. */
const char *program_included(const struct program *program);
const char *program_excluded(const struct program *program);

/* A connection of the main thread's own, checked to hold the right schema; its waits end by cancel_fd, one of
 * program->wake's. by_ms: 30 s from now at the latest. */
int program_connect(struct program *program, int cancel_fd, int64_t by_ms, struct pg **out,
                    struct err *err) MUST_CHECK;

/* May we do with this outbox all that a relay does, and is it ordered as we are configured? Then *lanes (may
 * be NULL) is how many lanes it has, 0 without order. */
int program_check_outbox(const struct config *config, struct pg *pg, int64_t *lanes,
                         struct err *err) MUST_CHECK;

/* Could a program of this configuration run? Asks the database that it names; ends by cancel_fd. */
int program_try(const struct config *config, int cancel_fd, struct err *err) MUST_CHECK;

/* One second of a supervisor's life: the ledger's row, and what USR1 asks for. */
void program_tick(struct program *program);

#endif
