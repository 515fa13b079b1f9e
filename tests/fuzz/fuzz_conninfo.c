/*
 * fuzz_conninfo - any bytes around a password in a connection string: what is said of it holds no piece of
 * the password, and what is shown of it neither.
 *
 * The first byte: the frame in which the password stands; the rest stands before it, up to a NUL byte, and
 * behind it.
 */
#define _GNU_SOURCE /* memmem */
#include <stdlib.h>
#include <string.h>

#include "base/secrets.h"
#include "fuzz.h"
#include "postgres/pg.h"
#include "postgres/pg_conninfo.h"
#include "postgres/pg_hosts.h"

enum { CONNINFO_BYTES = 2048, ANYWHERE = 5 };

#define PASSWORD "sEcReT7Zq9Xw"

/* %s is what stands before and behind. */
static const char *const frames[] = {"%.*spassword=" PASSWORD "%.*s",
                                     "postgresql://u:" PASSWORD "%.*s@h/%.*s",
                                     "postgresql://%.*s:" PASSWORD "@%.*s",
                                     "host=h %.*s password='" PASSWORD "%.*s'",
                                     "postgresql://h/d?%.*spassword=" PASSWORD "%.*s",
                                     "%.*s" PASSWORD "%.*s"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char conninfo[CONNINFO_BYTES];
    struct pg_hosts hosts = {.list = NULL};
    struct err err = {0};
    struct text shown;
    if (bytes == 0 || memmem(data, bytes, PASSWORD, sizeof PASSWORD - 1)) {
        return 0; /* written as a host's name it is none */
    }
    const char *rest = (const char *)data + 1;
    size_t front = strnlen(rest, bytes - 1);
    size_t behind = front < bytes - 1 ? strnlen(rest + front + 1, bytes - 2 - front) : 0;
    const char *frame = frames[data[0] % (sizeof frames / sizeof frames[0])];
    (void)snprintf(conninfo, sizeof conninfo, frame, (int)front, rest, (int)behind,
                   rest + (behind > 0 ? front + 1 : 0));
    int result = pg_hosts_read(&hosts, conninfo, &err);
    PROMISE((result == 0) == !err_is_set(&err), "who refuses says why");
    PROMISE(result != 0 || hosts.count >= 1, "one host at least");
    PROMISE(!strstr(err.text, PASSWORD), "no error quotes the password");
    pg_hosts_finish(&hosts);
    secrets_clear();
    pg_remember_secrets(conninfo);
    text_init(&shown, 1 << 16);
    secrets_show_url(&shown, conninfo);
    if (strncmp(conninfo, "postgresql://", 13) == 0 &&
        frame != frames[ANYWHERE]) { /* there it may be a host's name */
        PROMISE(!strstr(text_get(&shown), PASSWORD), "nor is it shown");
    }
    text_finish(&shown);
    secrets_clear();
    return 0;
}
