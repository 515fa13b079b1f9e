/* backends - list: what there is; show: one with its options; test: the conformance kit; new: a project to
 * begin with. */
#define _GNU_SOURCE /* DT_REG */
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/output.h"
#include "command/cli.h"
#include "command/document.h"
#include "config/config_print.h"
#include "kit/kit.h"
#include "kit/scaffold.h"
#include "plugin/backend.h"
#include "plugin/loader.h"
#include "service/process.h"

enum { PRINT_MAX_BYTES = 1 << 20, LIBRARY_BYTES = 1024, KEY_BYTES = 160 };

/* ---- list ---- */

static json_t *entry(const char *name, const char *version, const char *place)
{
    return json_pack("{s:s, s:s, s:s}", "name", name, "version", version, "place", place);
}

static json_t *entry_of_file(const char *path)
{
    struct outbox_note note;
    struct err err = {0};
    if (loader_inspect(path, &note, &err) == 0) {
        return entry(note.name, note.version, path);
    }
    return json_pack("{s:s, s:s}", "place", path, "refused", err.text);
}

static int is_plugin(const struct dirent *file)
{
    size_t len = strlen(file->d_name);
    return len > 3 && strcmp(file->d_name + len - 3, ".so") == 0;
}

/* Built in first, then the plugins of the directory; none of their code runs. */
static json_t *list_all(void)
{
    json_t *list = json_array();
    struct dirent **files = NULL;
    for (const char *const *name = backend_names(); *name; name++) {
        (void)json_array_append_new(list, entry(*name, backend_find(*name)->version, "built in"));
    }
    char directory[LOADER_DIRECTORY_BYTES];
    int count = scandir(loader_directory(directory), &files, is_plugin, alphasort);
    for (int at = 0; at < count; at++) {
        char path[LOADER_DIRECTORY_BYTES + NAME_MAX + 2];
        (void)snprintf(path, sizeof path, "%s/%s", directory, files[at]->d_name);
        (void)json_array_append_new(list, entry_of_file(path));
        free(files[at]);
    }
    free((void *)files);
    return list;
}

static int print_list(const struct cli *cli)
{
    char directory[LOADER_DIRECTORY_BYTES];
    json_t *list = list_all();
    json_t *one = NULL;
    size_t at = 0;
    struct err err = {0};
    int code = 0;
    if (cli_has(cli, CLI_JSON)) {
        code = document_print(list, 0, &err) == 0 ? 0 : cli_fail(&err);
    } else {
        json_array_foreach(list, at, one)
        {
            const char *refused = json_string_value(json_object_get(one, "refused"));
            if (refused) {
                output_line(stdout, "%s", refused);
            } else {
                output_line(stdout, "%-12s %-10s %s", json_string_value(json_object_get(one, "name")),
                            json_string_value(json_object_get(one, "version")),
                            json_string_value(json_object_get(one, "place")));
            }
        }
        output_line(stdout, "Plugins are looked for in %s; any other by its absolute path.",
                    loader_directory(directory));
    }
    json_decref(list);
    return code;
}

/* ---- show ---- */

static int print_one(const char *value)
{
    const struct outbox_backend *table = NULL;
    struct err err = {0};
    struct text out;
    if (loader_find(&table, value, &err) != 0) {
        return cli_fail(&err);
    }
    struct option_set options;
    char library[LIBRARY_BYTES];
    if (backend_options(&options, table, &err) != 0) {
        return cli_fail(&err);
    }
    backend_library(table, library, sizeof library);
    output_line(stdout, "%s %s (%s)", table->name, table->version, backend_find(value) ? "built in" : value);
    char *rest = library;
    for (const char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
        if (line[0]) {
            output_line(stdout, "  %s", line);
        }
    }
    output_line(stdout, "checks an idle session: %s; can be interrupted: %s",
                BACKEND_HAS(table, check) ? "yes" : "no", BACKEND_HAS(table, interrupt) ? "yes" : "no");
    output_line(stdout, "%s", options.count > 0 ? "options:" : "no options");
    text_init(&out, PRINT_MAX_BYTES);
    config_print_options(options.table, table->name, &out);
    output_text(stdout, text_view(&out));
    text_finish(&out);
    option_set_finish(&options);
    return 0;
}

/* ---- test ---- */

/*
 * glibc's per-thread cache counts freed memory as in use, and small leaks drown in it: the kit runs without
 * one, which must be said before the process starts.
 */
static void run_without_cache(char *const *argv)
{
    static const char name[] = "GLIBC_TUNABLES";
    if (!getenv(name) && setenv(name, "glibc.malloc.tcache_count=0", 1) == 0) {
        (void)execv("/proc/self/exe", argv);
    }
}

static int check_option(const struct kit_options *options, const char *value, const char *name,
                        struct err *err)
{
    const char *own = options->table->name;
    if (strncmp(name, own, strlen(own)) == 0 && name[strlen(own)] == '.') {
        return err_set(err, ERR_USAGE, "--proxy %s: write the option without '%s.'", value, own);
    }
    if (option_find(options->settings, name) < 0) {
        return err_set(err, ERR_USAGE, "--proxy %s: backend %s has no such option", name, own);
    }
    return 0;
}

/* "OPTION" or "HOST_OPTION,PORT_OPTION", and "=PORT" behind it; `names` is where the former are kept. */
static int read_proxy(const struct cli *cli, struct kit_options *options, char names[2][KEY_BYTES],
                      struct err *err)
{
    const char *value = cli->values[CLI_PROXY];
    if (!value) {
        return 0;
    }
    size_t len = strcspn(value, "=");
    size_t first = strcspn(value, "=,");
    (void)snprintf(names[0], KEY_BYTES, "%.*s", (int)first, value);
    (void)snprintf(names[1], KEY_BYTES, "%.*s", first < len ? (int)(len - first - 1) : 0,
                   value + first + (first < len));
    if (check_option(options, value, names[0], err) != 0 ||
        (first < len && check_option(options, value, names[1], err) != 0)) {
        return -1;
    }
    char *end = NULL;
    unsigned long port = value[len] == '=' ? strtoul(value + len + 1, &end, 10) : 0;
    if (value[len] == '=' && (!end || *end != '\0' || port < 1 || port > 65535)) {
        return err_set(err, ERR_USAGE,
                       "--proxy %s: write OPTION=PORT with the port where the proxy is to listen", value);
    }
    options->proxy_option = names[0];
    options->proxy_port_option = first < len ? names[1] : NULL;
    options->proxy_port = (unsigned)port;
    return 0;
}

/* "-o" takes it with the backend's name or without; so does this. */
static const char *without_section(const char *pair, const char *section)
{
    size_t len = strlen(section);
    return pair && strncmp(pair, section, len) == 0 && pair[len] == '.' ? pair + len + 1 : pair;
}

static int run_kit(struct cli *cli, const struct config *config)
{
    struct err err = {0};
    char proxy_options[2][KEY_BYTES];
    const struct outbox_backend *table = config->backend;
    enum kit_verdict verdict = KIT_NOT_CONFORMANT;
    struct kit_options options = {.table = table,
                                  .settings = (struct option_set *)config_section(config, table->name),
                                  .place = backend_find(cli->arguments[1]) ? "built in" : cli->arguments[1],
                                  .refusing = without_section(cli->values[CLI_REFUSING], table->name),
                                  .only = cli->values[CLI_ONLY],
                                  .argv = cli->argv};
    if (read_proxy(cli, &options, proxy_options, &err) != 0 || kit_check_options(&options, &err) != 0) {
        return cli_fail(&err);
    }
    kit_run_in_child(&options);
    if (kit_run(&options, stdout, &verdict, &err) != 0) {
        return cli_fail(&err);
    }
    return verdict == KIT_NOT_CONFORMANT ? 1 : 0;
}

/* "-o key=value" may leave out the backend's name: there is one backend here. */
static int test_one(struct cli *cli)
{
    struct config config;
    struct err err = {0};
    const struct outbox_backend *table = NULL;
    char keys[CLI_MAX_OVERRIDES][KEY_BYTES];
    struct option_set options;
    run_without_cache(cli->argv);
    kit_before_load();
    if (loader_find(&table, cli->arguments[1], &err) != 0) {
        return cli_fail(&err);
    }
    if (backend_options(&options, table, &err) != 0) {
        return cli_fail(&err);
    }
    for (size_t at = 0; at < cli->override_count; at++) {
        struct config_override *override = &cli->overrides[at];
        if (option_find(&options, override->key) >= 0) {
            (void)snprintf(keys[at], sizeof keys[at], "%s.%s", table->name, override->key);
            override->key = keys[at];
        }
    }
    option_set_finish(&options);
    if (cli->override_count == CLI_MAX_OVERRIDES) {
        (void)err_set(&err, ERR_USAGE, "more than %d options", CLI_MAX_OVERRIDES - 1);
        return cli_fail(&err);
    }
    cli->overrides[cli->override_count++] =
        (struct config_override){"backend", cli->arguments[1], "backends test"};
    int code = cli_load_config(cli, &config, CONFIG_LOADS_PLUGIN);
    if (code == 0) {
        code = run_kit(cli, &config);
        config_finish(&config);
        (void)fflush(stdout);
        _exit(code); /* what it does at exit was judged elsewhere, and must not undo the verdict */
    }
    return code;
}

/* ---- new ---- */

static int begin_one(const char *name)
{
    struct err err = {0};
    if (scaffold_write(name, &err) != 0) {
        return cli_fail(&err);
    }
    struct text next; /* of a name that scaffold_write took: a word */
    text_init(&next, PRINT_MAX_BYTES);
    text_addf(&next,
              "%s/ is ready. Next:\n\n  cd %s\n  cmake -B build && cmake --build build && ctest "
              "--test-dir build\n\n"
              "or, without CMake:\n\n  cc -std=c11 -Wall -shared -fPIC -fvisibility=hidden %s.c -o %s.so "
              "$(pkg-config --cflags "
              "outbox-backend)\n  outbox-relay backends test \"$PWD/%s.so\"\n",
              name, name, name, name, name);
    output_text(stdout, text_view(&next));
    text_finish(&next);
    return 0;
}

int cmd_backends(struct cli *cli)
{
    struct err err = {0};
    const char *word = cli->argument_count > 0 ? cli->arguments[0] : "";
    process_unseal(); /* authors have debuggers, and files that others may read; there are no messages here */
    bool lists = strcmp(word, "list") == 0;
    bool tests = strcmp(word, "test") == 0;
    if ((cli_has(cli, CLI_JSON) && !lists) ||
        (!tests && (cli_has(cli, CLI_LIST) || cli_has(cli, CLI_ONLY) || cli_has(cli, CLI_PROXY) ||
                    cli_has(cli, CLI_REFUSING)))) {
        (void)err_set(
            &err, ERR_USAGE,
            "--json is for 'backends list', and --list, --only, --proxy and --refusing for 'backends "
            "test'");
        return cli_fail(&err);
    }
    if (lists && cli->argument_count == 1) {
        return print_list(cli);
    }
    if (strcmp(word, "show") == 0 && cli->argument_count == 2) {
        return print_one(cli->arguments[1]);
    }
    if (tests && cli_has(cli, CLI_LIST)) {
        kit_list(stdout);
        return 0;
    }
    if (tests && cli->argument_count == 2) {
        return test_one(cli);
    }
    if (strcmp(word, "new") == 0 && cli->argument_count == 2) {
        return begin_one(cli->arguments[1]);
    }
    (void)err_set(&err, ERR_USAGE,
                  "write 'outbox-relay backends list', 'show NAME', 'test PATH' or 'new NAME'");
    return cli_fail(&err);
}
