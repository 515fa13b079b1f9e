#include "postgres/sqlstate.h"

#include <stddef.h>
#include <string.h>

enum err_class sqlstate_class(const char *sqlstate)
{
    /* The first prefix that fits counts. */
    static const struct {
        const char *prefix;
        enum err_class class;
    } table[] = {
        {"08", ERR_CONNECTION},    /* connection exception */
        {"25006", ERR_CONNECTION}, /* read-only: a standby now */
        {"25P03", ERR_CONNECTION}, /* idle in transaction too long: the session has ended */
        {"25P04", ERR_CONNECTION}, /* transaction too long: likewise (PostgreSQL 17) */
        {"28", ERR_REFUSED},       /* authentication */
        {"3D000", ERR_CONFIG},     /* no such database */
        {"3F000", ERR_CONFIG},     /* no such schema */
        {"40", ERR_RETRY},         /* serialization failure, deadlock */
        {"42501", ERR_REFUSED},    /* insufficient privilege */
        {"42", ERR_CONFIG},        /* missing table, column, function */
        {"53", ERR_CONNECTION},    /* no resources, too many connections */
        {"55P03", ERR_RETRY},      /* lock timeout */
        {"57014", ERR_RETRY},      /* statement timeout, cancelled */
        {"57P", ERR_CONNECTION},   /* shut down, crashed, cannot connect now */
        {"58", ERR_CONNECTION},    /* the server's own system failed */
    };
    for (size_t at = 0; at < sizeof table / sizeof table[0]; at++) {
        if (strncmp(sqlstate, table[at].prefix, strlen(table[at].prefix)) == 0) {
            return table[at].class;
        }
    }
    return ERR_INTERNAL;
}

const char *sqlstate_advice(const char *sqlstate, const char *message, bool foreign)
{
    /* We ask for an error where a policy would hide rows: an outbox that looks empty is none. */
    if (strcmp(sqlstate, "42501") != 0) {
        return "";
    }
    if (strstr(message, "row-level security")) {
        return ": ALTER TABLE ... DISABLE ROW LEVEL SECURITY, or ALTER ROLE ... BYPASSRLS for this user";
    }
    if (strstr(message, "must be owner")) {
        return ": do this as the owner of schema outbox";
    }
    return foreign
               ? ""
               : ": GRANT outbox_relay TO this user, as the schema's owner (migrate: run it as the owner)";
}
