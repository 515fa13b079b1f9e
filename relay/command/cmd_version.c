/* version - the program, its plugin ABI, the libraries that it runs with, and what is known to be wrong with
 * them. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/output.h"
#include "base/version.h"
#include "command/cli.h"
#include "command/document.h"
#include "config/yaml.h"
#include "plugin/backend.h"
#include "postgres/pg.h"
#include "store/schema.h"

enum { DESCRIPTION_BYTES = 1024 };

/* Names and versions as "name" -> text; the lines behind the first one of a backend's go to `warnings`. */
static json_t *list_libraries(json_t *warnings)
{
    int libpq = pg_library_version();
    json_t *libraries =
        json_pack("{s:o, s:s, s:s}", "libpq", json_sprintf("%d.%d", libpq / 10000, libpq % 10000), "libyaml",
                  yaml_library_version(), "jansson", jansson_version_str());
    for (const char *const *name = backend_names(); *name; name++) {
        char description[DESCRIPTION_BYTES];
        backend_library(backend_find(*name), description, sizeof description);
        char *rest = description;
        const char *first = strsep(&rest, "\n");
        if (first[0]) {
            (void)json_object_set_new(libraries, *name, json_string(first));
        }
        for (const char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
            (void)json_array_append_new(warnings, json_string(line));
        }
    }
    return libraries;
}

static int print_json(json_t *libraries, json_t *warnings)
{
    json_t *backends = json_object();
    for (const char *const *name = backend_names(); *name; name++) {
        (void)json_object_set_new(backends, *name, json_string(backend_find(*name)->version));
    }
    json_t *version =
        json_pack("{s:s, s:s, s:[i,i], s:i, s:i, s:o, s:O, s:O}", "version", RELAY_VERSION, "commit",
                  RELAY_COMMIT, "backend_abi", (int)OUTBOX_BACKEND_ABI_MAJOR, (int)OUTBOX_BACKEND_ABI_MINOR,
                  "schema", schema_newest(), "libpq", pg_library_version(), "backends", backends, "libraries",
                  libraries, "warnings", warnings);
    struct err err = {0};
    int code = document_print(version, 0, &err) == 0 ? 0 : cli_fail(&err);
    json_decref(version);
    return code;
}

static const char *text_of(const json_t *libraries, const char *name)
{
    return json_string_value(json_object_get(libraries, name));
}

static int print_text(json_t *libraries, json_t *warnings)
{
    output_line(stdout, "outbox-relay %s (%s)", RELAY_VERSION, RELAY_COMMIT);
    output_line(stdout, "backend ABI %u.%u, schema %d", OUTBOX_BACKEND_ABI_MAJOR, OUTBOX_BACKEND_ABI_MINOR,
                schema_newest());
    output_line(stdout, "libpq %s, libyaml %s, jansson %s", text_of(libraries, "libpq"),
                text_of(libraries, "libyaml"), text_of(libraries, "jansson"));
    output_line(stdout, "backends:");
    for (const char *const *name = backend_names(); *name; name++) {
        const char *library = text_of(libraries, *name);
        output_line(stdout, "  %s %s%s%s", *name, backend_find(*name)->version, library ? ", " : "",
                    library ? library : "");
    }
    json_t *warning = NULL;
    size_t at = 0;
    json_array_foreach(warnings, at, warning)
    {
        output_line(stdout, "%s", json_string_value(warning));
    }
    return 0;
}

int cmd_version(struct cli *cli)
{
    json_t *warnings = json_array();
    json_t *libraries = list_libraries(warnings);
    int code = (cli_has(cli, CLI_JSON) ? print_json : print_text)(libraries, warnings);
    json_decref(libraries);
    json_decref(warnings);
    return code;
}
