/*
 * pg_hosts - the hosts that a connection string names, one by one.
 *
 * libpq tries them in turn, but its asynchronous connect knows no connect_timeout: a host that neither
 * answers nor refuses would use up the time of all. So each is tried by itself.
 */
#ifndef RELAY_PG_HOSTS_H
#define RELAY_PG_HOSTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* What to put behind a connection string, so that libpq knows this host only; "" leaves what stands there. */
struct pg_host {
    char name[256];
    char address[64];
    char port[16];
    char lookup[256]; /* its name, where a name server has to be asked; "" = not, or that is libpq's matter */
};

struct pg_hosts {
    struct pg_host *list;
    size_t count;       /* at least 1 */
    int64_t timeout_ms; /* connect_timeout of each; 0 = none */
};

/*
 * Reads conninfo (URI, key=value or a bare database name) and libpq's defaults (PGHOST, PGSERVICE ...). The
 * hosts of a service that conninfo names, and lists with an empty place, are left to libpq as one. A conninfo
 * that libpq cannot read is ERR_CONFIG. *hosts needs pg_hosts_finish(), also after an error.
 */
int pg_hosts_read(struct pg_hosts *hosts, const char *conninfo, struct err *err) MUST_CHECK;
void pg_hosts_finish(struct pg_hosts *hosts);

#endif
