#include "command/argv.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* "amqp.url=***": with NUL behind it, which does not show how long it was. */
static void hide(char *argument)
{
    char *equals = strchr(argument, '=');
    char *url = strstr(argument, "://");
    char *from = equals ? equals + 1 : NULL;
    from = url && (!from || url < from) ? url + strlen("://") : from;
    size_t len = from ? strlen(from) : 0;
    if (len > 0) {
        explicit_bzero(from, len);
        memset(from, '*', len < 3 ? len : 3);
    }
}

char **argv_take(int argc, char **argv, struct err *err)
{
    char **copy = calloc((size_t)argc + 1, sizeof *copy);
    for (int at = 0; copy && at < argc; at++) {
        copy[at] = strdup(argv[at]);
        if (!copy[at]) {
            argv_free(copy);
            copy = NULL;
        }
    }
    if (!copy) {
        (void)err_set(err, ERR_INTERNAL, "out of memory");
        return NULL;
    }
    for (int at = 1; at < argc; at++) {
        hide(argv[at]);
    }
    return copy;
}

void argv_free(char **copy)
{
    for (char **argument = copy; argument && *argument; argument++) {
        explicit_bzero(*argument, strlen(*argument));
        free(*argument);
    }
    free(copy);
}
