/*
 * pg_conninfo - what a connection string says, to libpq and to people.
 *
 * libpq divides a URL at the first mark that it knows: where a special character of a password was not
 * written %XX, a piece of it is taken for a host, a port or a database's name, and would be looked up and
 * told. Such a string is refused, and nothing of it is shown.
 */
#ifndef RELAY_PG_CONNINFO_H
#define RELAY_PG_CONNINFO_H

#include "base/bytes.h"
#include "base/err.h"

struct _PQconninfoOption; /* libpq's PQconninfoOption */

/* Reads a URI or key=value; *options is the caller's (PQconninfoFree). A bare database name is not parsed at
 * all: *options is NULL then. ERR_CONFIG without a piece of it where it cannot be read, or may not mean what
 * it says. */
int pg_conninfo_parse(struct _PQconninfoOption **options, const char *conninfo, struct err *err) MUST_CHECK;

/* What it says, without passwords, keys, tokens and options of the session, for people. */
void pg_describe(struct text *out, const char *conninfo);

/* Makes its passwords, and those of libpq's environment, known to base/secrets.h. */
void pg_remember_secrets(const char *conninfo);

#endif
