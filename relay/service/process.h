/*
 * process - what others on this host may come to see of ours: its memory, its files, its keys.
 *
 * It holds the credentials of database and broker and every message in flight. From its first line on it
 * leaves no core file, lets no debugger of its own user in, gains no rights by executing a program, makes
 * files for its user alone, and keeps SSLKEYLOGFILE from libraries: libcurl would write down the keys of
 * every TLS connection. (PR_SET_DUMPABLE(2const), PR_SET_NO_NEW_PRIVS(2const), umask(2))
 */
#ifndef RELAY_PROCESS_H
#define RELAY_PROCESS_H

#include <stdbool.h>

#include "base/err.h"

/* First thing in main(), before there is another thread. ERR_INTERNAL where the system refuses. */
int process_seal(struct err *err) MUST_CHECK;

/* At the start, too. Takes back what stands in the way of who looks for a fault: `debuggable: true`, and
 * authors of backends. What is made from now on by executing other programs stays without new rights. */
void process_unseal(void);

/* Does the environment ask for a log of TLS keys that is not written? */
bool process_withholds_keys(void);

#endif
