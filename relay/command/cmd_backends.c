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

#include "command/cli.h"
#include "config/config_print.h"
#include "kit/kit.h"
#include "kit/scaffold.h"
#include "plugin/backend.h"
#include "plugin/loader.h"

enum { PRINT_MAX_BYTES = 1 << 20, LIBRARY_BYTES = 1024 };

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
    int count = scandir(loader_directory(), &files, is_plugin, alphasort);
    for (int at = 0; at < count; at++) {
        char path[PATH_MAX];
        (void)snprintf(path, sizeof path, "%s/%s", loader_directory(), files[at]->d_name);
        (void)json_array_append_new(list, entry_of_file(path));
        free(files[at]);
    }
    free((void *)files);
    return list;
}

static int print_list(const struct cli *cli)
{
    json_t *list = list_all();
    json_t *one = NULL;
    size_t at = 0;
    if (cli_has(cli, CLI_JSON)) {
        (void)json_dumpf(list, stdout, JSON_COMPACT);
        (void)printf("\n");
    } else {
        json_array_foreach(list, at, one)
        {
            const char *refused = json_string_value(json_object_get(one, "refused"));
            if (refused) {
                (void)printf("%s\n", refused);
            } else {
                (void)printf("%-12s %-10s %s\n", json_string_value(json_object_get(one, "name")),
                             json_string_value(json_object_get(one, "version")),
                             json_string_value(json_object_get(one, "place")));
            }
        }
        (void)printf("Plugins are looked for in %s; any other by its absolute path.\n", loader_directory());
    }
    json_decref(list);
    return 0;
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
    bool checks = table->size >= offsetof(struct outbox_backend, check) + sizeof table->check && table->check;
    bool interrupts = table->size >= offsetof(struct outbox_backend, interrupt) + sizeof table->interrupt &&
                      table->interrupt;
    char library[LIBRARY_BYTES];
    backend_library(table, library, sizeof library);
    text_init(&out, PRINT_MAX_BYTES);
    text_addf(&out, "%s %s (%s)\n%s%schecks an idle session: %s; can be interrupted: %s\n%s", table->name,
              table->version, backend_find(value) ? "built in" : value, library, library[0] ? "\n" : "",
              checks ? "yes" : "no", interrupts ? "yes" : "no",
              table->options->name ? "options:\n" : "no options\n");
    config_print_options(table->options, table->name, &out);
    (void)fputs(text_get(&out), stdout);
    text_finish(&out);
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

static int run_kit(struct cli *cli, const struct config *config)
{
    struct err err = {0};
    const struct outbox_backend *table = config->backend;
    const struct log log = {.level = LOG_ERROR, .fd = STDERR_FILENO};
    enum kit_verdict verdict = KIT_NOT_CONFORMANT;
    const struct kit_options options = {.table = table,
                                        .settings = (struct option_set *)config_section(config, table->name),
                                        .place =
                                            backend_find(cli->arguments[1]) ? "built in" : cli->arguments[1],
                                        .proxy_option = cli->values[CLI_PROXY],
                                        .log = &log};
    if (options.proxy_option && strncmp(options.proxy_option, table->name, strlen(table->name)) == 0 &&
        options.proxy_option[strlen(table->name)] == '.') {
        (void)err_set(&err, ERR_USAGE, "--proxy %s: write the option without '%s.'", options.proxy_option,
                      table->name);
    } else if (options.proxy_option && option_find(options.settings, options.proxy_option) < 0) {
        (void)err_set(&err, ERR_USAGE, "--proxy %s: backend %s has no such option", options.proxy_option,
                      table->name);
    } else if (kit_run(&options, stdout, &verdict, &err) == 0) {
        return verdict == KIT_NOT_CONFORMANT ? 1 : 0;
    }
    return cli_fail(&err);
}

/* "-o key=value" may leave out the backend's name: there is one backend here. */
static int test_one(struct cli *cli)
{
    struct config config;
    struct err err = {0};
    const struct outbox_backend *table = NULL;
    char keys[CLI_MAX_OVERRIDES][160];
    run_without_cache(cli->argv);
    if (loader_find(&table, cli->arguments[1], &err) != 0) {
        return cli_fail(&err);
    }
    for (size_t at = 0; at < cli->override_count; at++) {
        struct config_override *override = &cli->overrides[at];
        for (const struct outbox_option *row = table->options; row->name; row++) {
            if (strcmp(row->name, override->key) == 0) {
                (void)snprintf(keys[at], sizeof keys[at], "%s.%s", table->name, row->name);
                override->key = keys[at];
                break;
            }
        }
    }
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
    (void)printf("%s/ is ready. Next:\n\n  cd %s\n  cmake -B build && cmake --build build && ctest "
                 "--test-dir build\n\n"
                 "or, without CMake:\n\n  cc -std=c11 -Wall -shared -fPIC -fvisibility=hidden %s.c -o %s.so "
                 "$(pkg-config --cflags "
                 "outbox-backend)\n  outbox-relay backends test \"$PWD/%s.so\"\n",
                 name, name, name, name, name);
    return 0;
}

int cmd_backends(struct cli *cli)
{
    struct err err = {0};
    const char *word = cli->argument_count > 0 ? cli->arguments[0] : "";
    if (strcmp(word, "list") == 0 && cli->argument_count == 1) {
        return print_list(cli);
    }
    if (strcmp(word, "show") == 0 && cli->argument_count == 2) {
        return print_one(cli->arguments[1]);
    }
    if (strcmp(word, "test") == 0 && cli->argument_count == 2) {
        return test_one(cli);
    }
    if (strcmp(word, "new") == 0 && cli->argument_count == 2) {
        return begin_one(cli->arguments[1]);
    }
    (void)err_set(&err, ERR_USAGE,
                  "write 'outbox-relay backends list', 'show NAME', 'test PATH' or 'new NAME'");
    return cli_fail(&err);
}
