#include "postgres/pg_hosts.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "postgres/pg_conninfo.h"

/* ---- what the connection string and the environment say ---- */

static const char *find(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *option = options; option && option->keyword; option++) {
        if (strcmp(option->keyword, keyword) == 0) {
            return option->val && option->val[0] ? option->val : NULL;
        }
    }
    return NULL;
}

/* ---- lists ---- */

static const char PORT[] =
    "5432"; /* where a place of the list is empty: PGPORT does not count then, either */

static size_t count_places(const char *list)
{
    size_t places = list ? 1 : 0;
    for (const char *at = list; at && *at; at++) {
        places += *at == ',';
    }
    return places;
}

/* Copies place `at`; a list of one holds for all. False where it is too long, or empty without a default. */
static bool copy_place(char *out, size_t out_bytes, const char *list, size_t at, const char *otherwise)
{
    if (!list) {
        return true;
    }
    for (size_t comma = count_places(list) > 1 ? at : 0; comma > 0; comma--) {
        list = strchr(list, ',') + 1;
    }
    size_t length = strcspn(list, ",");
    if (length == 0 && otherwise) {
        list = otherwise;
        length = strlen(otherwise);
    }
    if (length == 0 || length >= out_bytes) {
        return false;
    }
    memcpy(out, list, length);
    out[length] = '\0';
    return true;
}

static void leave_to_libpq(struct pg_hosts *hosts)
{
    hosts->count = 1;
    hosts->list[0] = (struct pg_host){.name = ""};
}

/* A path or an abstract name is a socket's. */
static void note_lookup(struct pg_host *host, const char *name)
{
    if (!host->address[0] && name[0] != '/' && name[0] != '@' && strlen(name) < sizeof host->lookup) {
        memcpy(host->lookup, name, strlen(name) + 1);
    }
}

/* libpq itself tells what is wrong with lists that do not agree in length. */
static int read_lists(struct pg_hosts *hosts, const char *names, const char *addresses, const char *ports,
                      struct err *err)
{
    size_t count = count_places(addresses ? addresses : names);
    bool agree = (!names || !addresses || count_places(names) == count) &&
                 (count_places(ports) <= 1 || count_places(ports) == count);
    hosts->list = calloc(count > 1 ? count : 1, sizeof *hosts->list);
    if (!hosts->list) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    if (count <= 1 || !agree) {
        leave_to_libpq(hosts);
        if (agree && names && !addresses) {
            note_lookup(hosts->list, names);
        }
        return 0;
    }
    for (size_t at = 0; at < count; at++) {
        struct pg_host *host = &hosts->list[at];
        if (!copy_place(host->name, sizeof host->name, names, at, NULL) ||
            !copy_place(host->address, sizeof host->address, addresses, at, NULL) ||
            !copy_place(host->port, sizeof host->port, ports, at, PORT)) {
            leave_to_libpq(hosts);
            return 0;
        }
        note_lookup(host, host->name);
    }
    hosts->count = count;
    return 0;
}

int pg_hosts_read(struct pg_hosts *hosts, const char *conninfo, struct err *err)
{
    *hosts = (struct pg_hosts){.list = NULL};
    PQconninfoOption *options = NULL;
    if (pg_conninfo_parse(&options, conninfo, err) != 0) {
        return -1;
    }
    PQconninfoOption *defaults = PQconndefaults();
    const char *values[4] = {"host", "hostaddr", "port", "connect_timeout"};
    bool service = find(options, "service") != NULL;
    for (size_t at = 0; at < 4; at++) {
        const char *said = find(options, values[at]);
        values[at] = said || service ? said : find(defaults, values[at]);
    }
    int result = read_lists(hosts, values[0], values[1], values[2], err);
    long seconds = values[3] ? strtol(values[3], NULL, 10) : 0;
    hosts->timeout_ms = seconds > 0 && seconds < 86400 ? (int64_t)seconds * 1000 : 0;
    PQconninfoFree(defaults);
    PQconninfoFree(options);
    return result;
}

void pg_hosts_finish(struct pg_hosts *hosts)
{
    free(hosts->list);
    hosts->list = NULL;
}
