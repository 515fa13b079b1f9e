#include "postgres/pg_conninfo.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <string.h>

#include "base/secrets.h"

/* libpq quotes what it cannot read, which may be a piece of a password: only the name of an option is told.
 */
static size_t told_length(const char *text)
{
    static const char option[] = "invalid connection option \"";
    bool is_a_name = strncmp(text, option, sizeof option - 1) == 0;
    size_t name_len = is_a_name ? strspn(text + sizeof option - 1, "abcdefghijklmnopqrstuvwxyz_") : 0;
    return is_a_name ? sizeof option - 1 + name_len + 1 : strcspn(text, "\n\":");
}

/* Where the authority of a URI begins (PostgreSQL manual 34.1.1.2); NULL for key=value. */
static const char *authority_of(const char *conninfo)
{
    static const char *const schemes[] = {"postgresql://", "postgres://"};
    for (size_t at = 0; at < sizeof schemes / sizeof schemes[0]; at++) {
        if (strncmp(conninfo, schemes[at], strlen(schemes[at])) == 0) {
            return conninfo + strlen(schemes[at]);
        }
    }
    return NULL;
}

/* In front of the query, one '@' ends user and password, and stands in front of each '/': what is between two
 * of them, or between them, may be the rest of a password. libpq takes a '?' in front of the '@' for a part
 * of that, and reads an '@' behind it as one that ends it: so may whoever wrote it have meant. */
static bool is_ambiguous(const char *conninfo)
{
    const char *authority = authority_of(conninfo);
    if (!authority || !strchr(authority, '@')) {
        return false;
    }
    size_t first = strcspn(authority, "@");
    size_t slash = strcspn(authority, "/");
    size_t query = strcspn(authority, "?");
    const char *host = authority + first + 1;
    bool in_query = slash < query && query < first; /* postgres://host/name?user=me@there */
    bool another = host[strcspn(host, "@?")] == '@';
    return !in_query && (another || slash < first || query < first);
}

int pg_conninfo_parse(PQconninfoOption **options, const char *conninfo, struct err *err)
{
    char *fault = NULL;
    *options = NULL;
    if (!strchr(conninfo, '=') && !strstr(conninfo, "://")) {
        return 0;
    }
    bool ambiguous = is_ambiguous(conninfo);
    *options = ambiguous ? NULL : PQconninfoParse(conninfo, &fault);
    if (*options) {
        return 0;
    }
    char line[300];
    const char *text = ambiguous ? "it is not clear which '@' ends the password"
                       : !fault  ? "out of memory"
                       : strncmp(fault, "missing \"=\"", 11) == 0 ? "there is a word without '='"
                                                                  : fault;
    secrets_copy(line, sizeof line, (struct bytes){text, told_length(text)});
    PQfreemem(fault);
    return err_set(err, ERR_CONFIG,
                   "database: %s (in a URL, special characters of user name and password are "
                   "written %%XX; in key=value, a value with spaces stands in single quotes)",
                   line);
}

/* Newer libraries know keys (scram_client_key) and tokens that are as good as a password; sslkey and passfile
 * are names of files. */
static bool is_secret(const PQconninfoOption *option)
{
    static const char *const words[] = {"password", "secret", "token", "_key"};
    bool secret = option->dispchar[0] == '*';
    for (size_t at = 0; at < sizeof words / sizeof words[0]; at++) {
        secret = secret || strstr(option->keyword, words[at]) != NULL;
    }
    return secret;
}

void pg_describe(struct text *out, const char *conninfo)
{
    PQconninfoOption *options = NULL;
    struct err unreadable = {0};
    if (pg_conninfo_parse(&options, conninfo, &unreadable) != 0 || !options) {
        text_add(out, "(unreadable)");
        return;
    }
    for (const PQconninfoOption *option = options; option->keyword; option++) {
        if (option->val && option->val[0] != '\0') {
            /* A setting of the session may be a token of somebody's function; what is no port, anything. */
            bool no_port = strcmp(option->keyword, "port") == 0 &&
                           strspn(option->val, "0123456789,") < strlen(option->val);
            bool hidden = is_secret(option) || no_port || strcmp(option->keyword, "options") == 0;
            text_addf(out, "%s%s=%s", out->len > 0 ? " " : "", option->keyword, hidden ? "***" : option->val);
        }
    }
    PQconninfoFree(options);
}

static void remember(const PQconninfoOption *options)
{
    for (const PQconninfoOption *option = options; option && option->keyword; option++) {
        if (option->val && is_secret(option)) {
            secrets_add(bytes_of(option->val));
        }
    }
}

void pg_remember_secrets(const char *conninfo)
{
    PQconninfoOption *options = conninfo ? PQconninfoParse(conninfo, NULL) : NULL;
    PQconninfoOption *defaults = PQconndefaults();
    remember(options);
    remember(defaults);
    PQconninfoFree(options);
    PQconninfoFree(defaults);
}
