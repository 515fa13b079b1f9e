#include "service/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static const char key_log[] = "SSLKEYLOGFILE";

/* As it was handed to us; written by main()'s thread alone, before there is another. */
static struct {
    mode_t umask;
    char *key_log; /* NULL = not asked for */
    bool sealed;
} before;

int process_seal(struct err *err)
{
    const char *asked = getenv(key_log);
    if (asked && !(before.key_log = strdup(asked))) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    before.umask = umask(S_IRWXG | S_IRWXO);
    before.sealed = true;
    (void)umask(before.umask | S_IRWXG | S_IRWXO);
    if (unsetenv(key_log) != 0 || prctl(PR_SET_DUMPABLE, 0UL, 0UL, 0UL, 0UL) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) != 0) {
        return err_set(err, ERR_INTERNAL, "the process cannot be closed to others: %s", strerror(errno));
    }
    return 0;
}

void process_unseal(void)
{
    (void)umask(before.umask);
    (void)prctl(PR_SET_DUMPABLE, 1UL, 0UL, 0UL, 0UL);
    if (before.key_log) {
        (void)setenv(key_log, before.key_log, 1);
    }
    before.sealed = false;
}

bool process_withholds_keys(void)
{
    return before.sealed && before.key_log != NULL;
}
