/* version - the program, its plugin ABI, and the libraries it runs with. */
#include <jansson.h>
#include <stdio.h>

#include "base/version.h"
#include "command/cli.h"
#include "plugin/backend.h"
#include "postgres/pg.h"
#include "store/schema.h"

int cmd_version(struct cli *cli)
{
    int libpq = pg_library_version();
    if (cli_has(cli, CLI_JSON)) {
        json_t *backends = json_object();
        for (const char *const *name = backend_names(); *name; name++) {
            (void)json_object_set_new(backends, *name, json_string(backend_find(*name)->version));
        }
        json_t *version =
            json_pack("{s:s, s:s, s:[i,i], s:i, s:i, s:o}", "version", RELAY_VERSION, "commit", RELAY_COMMIT,
                      "backend_abi", (int)OUTBOX_BACKEND_ABI_MAJOR, (int)OUTBOX_BACKEND_ABI_MINOR, "schema",
                      schema_newest(), "libpq", libpq, "backends", backends);
        (void)json_dumpf(version, stdout, JSON_COMPACT);
        (void)printf("\n");
        json_decref(version);
        return 0;
    }
    (void)printf("outbox-relay %s (%s)\nbackend ABI %u.%u, schema %d, libpq %d.%d\nbackends:", RELAY_VERSION,
                 RELAY_COMMIT, OUTBOX_BACKEND_ABI_MAJOR, OUTBOX_BACKEND_ABI_MINOR, schema_newest(),
                 libpq / 10000, libpq % 10000);
    for (const char *const *name = backend_names(); *name; name++) {
        (void)printf(" %s %s", *name, backend_find(*name)->version);
    }
    (void)printf("\n");
    return 0;
}
