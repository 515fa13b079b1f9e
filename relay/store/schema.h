/*
 * schema - installs and upgrades schema outbox, and says whether this binary fits what is there.
 */
#ifndef RELAY_SCHEMA_H
#define RELAY_SCHEMA_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/log.h"
#include "postgres/pg.h"

/* The newest migration that this binary brings. */
int schema_newest(void);

/* What `migrate --dry-run` prints: the migrations above `installed` (0 = all), roles and grants, as SQL for
 * psql. */
void schema_print(struct text *out, int installed);

/* What all relays of this outbox must agree on. */
struct schema_order {
    bool by_key;
    int64_t lanes; /* a power of two; 0 without order */
};

enum { SCHEMA_MAX_LANES = 1024, SCHEMA_DEFAULT_LANES = 64 };

int schema_read_order(struct pg *pg, struct schema_order *order, struct err *err) MUST_CHECK;

/* Refuses a relay whose configuration says otherwise, or lanes that make no sense (ERR_CONFIG), naming the
 * fix. */
int schema_check_order(const struct schema_order *order, bool by_key, struct err *err) MUST_CHECK;

/* Told once when there is somebody to wait for: who, and how to end him. Borrowed. */
typedef void schema_waits(const char *holder);

/*
 * Sets the order, and makes or drops the indexes it needs, in one transaction with all locks at once: it
 * tries for a minute to find a moment in which nobody is in a transaction on the outbox, and makes nobody
 * wait longer than half a second for that; ERR_RETRY if there is none. While the indexes are built, all wait.
 * Relays that run then refuse to go on. No change is no work.
 */
int schema_set_order(struct pg *pg, const struct schema_order *order, schema_waits *waits, bool *changed,
                     struct err *err) MUST_CHECK;

/* A power of two up to SCHEMA_MAX_LANES? ERR_USAGE otherwise. */
int schema_check_lanes(const struct schema_order *order, struct err *err) MUST_CHECK;

/* The SQL of that, for psql. */
void schema_print_order(struct text *out, const struct schema_order *order);

struct schema_report {
    int before;       /* version found; 0 = none */
    int after;        /* version now */
    bool roles_exist; /* the three roles exist and were granted their rights */
};

/*
 * Brings the schema to schema_newest(), under an advisory lock; several at once are safe. A newer schema is
 * ERR_CONFIG. Roles are created where the user may; otherwise roles_exist is false and the statements of
 * schema_roles() are for somebody who may.
 */
int schema_migrate(struct pg *pg, schema_waits *waits, struct schema_report *report,
                   struct err *err) MUST_CHECK;

/* The version in the database, 0 if there is none. */
int schema_installed(struct pg *pg, int *version, struct err *err) MUST_CHECK;

/* Refuses a schema that is missing, too old or too new (ERR_CONFIG), naming the fix. */
int schema_check(struct pg *pg, struct err *err) MUST_CHECK;

/* Is the schema, if there is one, this user's with all that is in it? Else ERR_CONFIG: a stranger's trigger
 * or function would run with the rights of whoever migrates. */
int schema_check_owner(struct pg *pg, struct err *err) MUST_CHECK;

/* An error of a statement says in words of the database that the outbox's schema is gone: in ours then, with
 * the fix. Others stay as they are. Always returns -1. */
int schema_explain(struct err *err);

/* SQL that creates the roles and grants their rights. */
void schema_roles(struct text *out);

#endif
