#include "plugin/loader.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/printable.h"
#include "plugin/backend.h"
#include "plugin/elf_note.h"
#include "plugin/protected_path.h"

static const char entry_name[] = "outbox_backend_v1";

enum { OPTION_MAX_BYTES = 4096 };

/* "" where that directory was configured to lie elsewhere than the program's prefix. */
static const char from_program[] = RELAY_BACKENDS_FROM_PROGRAM;

const char *loader_directory(char out[LOADER_DIRECTORY_BYTES])
{
    char program[PATH_MAX];
    ssize_t len = from_program[0] ? readlink("/proc/self/exe", program, sizeof program - 1) : -1;
    program[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(program, '/');
    if (slash) {
        *slash = '\0';
        char beside[PATH_MAX];
        int written = snprintf(beside, sizeof beside, "%s/%s", program, from_program);
        char *resolved = written < (int)sizeof beside ? realpath(beside, NULL) : NULL;
        if (resolved) {
            (void)snprintf(out, LOADER_DIRECTORY_BYTES, "%s", resolved);
            free(resolved);
            return out;
        }
    }
    (void)snprintf(out, LOADER_DIRECTORY_BYTES, "%s", RELAY_BACKEND_DIRECTORY);
    return out;
}

/* ---- the note ---- */

static int check_note(const struct outbox_note *note, struct err *err)
{
    char name[sizeof note->name];
    char version[sizeof note->version];
    printable_copy(name, sizeof name, bytes_of(note->name));
    printable_copy(version, sizeof version, bytes_of(note->version));
    if (note->pointer_bytes != sizeof(void *)) {
        return err_set(
            err, ERR_CONFIG,
            "%s %s was built for pointers of %u bytes, and this relay's have %zu: build it for this "
            "relay's architecture",
            name, version, note->pointer_bytes, sizeof(void *));
    }
    if (note->abi_major != OUTBOX_BACKEND_ABI_MAJOR || note->abi_minor > OUTBOX_BACKEND_ABI_MINOR) {
        return err_set(
            err, ERR_CONFIG,
            "%s %s was built for backend ABI %u.%u, and this relay supports %u.0 to %u.%u: build it "
            "with this relay's outbox_backend.h",
            name, version, note->abi_major, note->abi_minor, OUTBOX_BACKEND_ABI_MAJOR,
            OUTBOX_BACKEND_ABI_MAJOR, OUTBOX_BACKEND_ABI_MINOR);
    }
    return 0;
}

/* *resolved is the caller's to free. */
static int inspect(const char *path, char **resolved, struct outbox_note *note, struct err *err)
{
    int fd = -1;
    if (protected_path_open(path, resolved, &fd, err) != 0) {
        return -1;
    }
    int result = elf_note_read(fd, note, err) == 0 ? check_note(note, err) : -1;
    (void)close(fd);
    if (result != 0) {
        free(*resolved);
        *resolved = NULL;
    }
    return result;
}

int loader_inspect(const char *path, struct outbox_note *note, struct err *err)
{
    char *resolved = NULL;
    *note = (struct outbox_note){0};
    int result = inspect(path, &resolved, note, err);
    free(resolved);
    return result == 0 ? 0 : err_prefix(err, "%s", path);
}

/* ---- the table ---- */

static bool has_plain_name(const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    return name && name[0] != '\0' && strspn(name, plain) == strlen(name);
}

static const char *missing_function(const struct outbox_backend *table)
{
    const struct {
        const char *name;
        bool there;
    } mandatory[] = {
        {"open", table->open != NULL},
        {"close", table->close != NULL},
        {"session_new", table->session_new != NULL},
        {"session_free", table->session_free != NULL},
        {"connect", table->connect != NULL},
        {"disconnect", table->disconnect != NULL},
        {"publish", table->publish != NULL},
    };
    for (size_t at = 0; at < sizeof mandatory / sizeof mandatory[0]; at++) {
        if (!mandatory[at].there) {
            return mandatory[at].name;
        }
    }
    return NULL;
}

/* "a" beside "a.b" would be a value and a section at once. */
static bool clash(const char *a, const char *b)
{
    size_t len = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
    return strncmp(a, b, len) == 0 && (a[len] == '\0' || a[len] == '.') && (b[len] == '\0' || b[len] == '.');
}

/* The rows are as far apart as the backend's own header says. */
static const struct outbox_option *option_at(const struct outbox_backend *table, size_t index)
{
    const char *rows = (const char *)table->options;
    return (const struct outbox_option *)(const void *)(rows + index * backend_option_bytes(table));
}

static int check_options(const struct outbox_backend *table, struct err *err)
{
    size_t each = backend_option_bytes(table);
    if (each < sizeof(struct outbox_option) || each > OPTION_MAX_BYTES ||
        each % _Alignof(struct outbox_option) != 0) {
        return err_set(err, ERR_CONFIG,
                       "its options have %zu bytes each: set .option_size = sizeof(struct outbox_option)",
                       each);
    }
    for (size_t at = 0; table->options && option_at(table, at)->name; at++) {
        const struct outbox_option *row = option_at(table, at);
        for (size_t before = 0; before < at; before++) {
            const struct outbox_option *other = option_at(table, before);
            if (clash(row->name, other->name)) {
                return err_set(err, ERR_CONFIG, "options '%s' and '%s' cannot be told apart: rename one",
                               other->name, row->name);
            }
        }
        if (row->name[0] == '\0' || row->type < OUTBOX_OPT_STRING || row->type > OUTBOX_OPT_MAP) {
            return err_set(err, ERR_CONFIG,
                           "option '%s' has an unknown type or no name: see enum outbox_option_type",
                           row->name);
        }
        if (!row->help || row->help[0] == '\0') {
            return err_set(err, ERR_CONFIG, "option '%s' has no help: write a line for those who set it",
                           row->name);
        }
        if (row->type == OUTBOX_OPT_CHOICE && (!row->choices || row->choices[0] == '\0')) {
            return err_set(err, ERR_CONFIG, "option '%s' is a choice without choices: set .choices = \"a|b\"",
                           row->name);
        }
    }
    return 0;
}

int loader_check_table(const struct outbox_backend *table, struct err *err)
{
    if (!table || table->size < offsetof(struct outbox_backend, check)) {
        return err_set(err, ERR_CONFIG,
                       "its table is missing or too small: set .size = sizeof(struct outbox_backend)");
    }
    const char *missing = missing_function(table);
    if (missing) {
        return err_set(err, ERR_CONFIG, "its table has no %s(): set .%s", missing, missing);
    }
    if (!has_plain_name(table->name) || !table->version || table->version[0] == '\0') {
        return err_set(
            err, ERR_CONFIG,
            "its table has no name of letters, digits, '_' and '-', or no version: set .name and .version");
    }
    return check_options(table, err);
}

/* ---- loading ---- */

static bool any_loaded; /* by the main thread, which alone looks */

static int load(const struct outbox_backend **out, const char *path, struct err *err)
{
    struct outbox_note note = {0};
    char *resolved = NULL;
    if (inspect(path, &resolved, &note, err) != 0) {
        return -1;
    }
    any_loaded = true;
    void *object = dlopen(resolved, RTLD_NOW | RTLD_LOCAL);
    free(resolved);
    if (!object) {
        return err_set(err, ERR_CONFIG, "%s", dlerror());
    }
    union { /* ISO C knows no cast from an object pointer to a function pointer (dlsym(3), POSIX does) */
        void *symbol;
        const struct outbox_backend *(*entry)(void);
    } found = {dlsym(object, entry_name)};
    if (!found.symbol) {
        return err_set(err, ERR_CONFIG, "it does not export %s(): write OUTBOX_BACKEND() at file scope, once",
                       entry_name);
    }
    const struct outbox_backend *table = found.entry();
    if (loader_check_table(table, err) != 0) {
        return -1;
    }
    if (strcmp(table->name, note.name) != 0 || strcmp(table->version, note.version) != 0) {
        return err_set(err, ERR_CONFIG,
                       "its table says %s %s and its note %s %s: make them equal (if the file was replaced "
                       "while this process ran, restart it)",
                       table->name, table->version, note.name, note.version);
    }
    *out = table;
    return 0;
}

/* Where the plugin of that name or path would be. */
static int locate(const char *value, char path[PATH_MAX], struct err *err)
{
    if (strchr(value, '/')) {
        if (value[0] != '/') {
            return err_set(err, ERR_CONFIG, "%s: write an absolute path, such as \"$PWD/%s\"", value,
                           strncmp(value, "./", 2) == 0 ? value + 2 : value);
        }
        (void)snprintf(path, PATH_MAX, "%s", value);
        return 0;
    }
    char directory[LOADER_DIRECTORY_BYTES];
    int len = snprintf(path, PATH_MAX, "%s/%s.so", loader_directory(directory), value);
    if (!has_plain_name(value) || len >= PATH_MAX || access(path, F_OK) != 0) {
        return err_set(
            err, ERR_CONFIG,
            "there is no backend '%s', built in or in %s: 'outbox-relay backends list' names them%s", value,
            directory, access(value, F_OK) == 0 ? "; for the file here write \"$PWD/...\"" : "");
    }
    return 0;
}

int loader_find(const struct outbox_backend **out, const char *value, struct err *err)
{
    char path[PATH_MAX];
    *out = backend_find(value);
    if (*out) {
        return 0;
    }
    if (locate(value, path, err) != 0) {
        return -1;
    }
    return load(out, path, err) == 0 ? 0 : err_prefix(err, "%s", path);
}

void loader_name(const char *value, char *out, size_t out_bytes)
{
    char path[PATH_MAX];
    struct outbox_note note;
    struct err err = {0};
    bool known = locate(value, path, &err) == 0 && loader_inspect(path, &note, &err) == 0;
    (void)snprintf(out, out_bytes, "%s", known ? note.name : "");
}

/* ---- the end ---- */

enum { EXIT_S = 5, EXIT_STACK_BYTES = 64 << 10 };

static void *end_anyway(void *code)
{
    static const char text[] =
        "outbox-relay: a library of the backend still works at exit after 5 s; ended without it\n";
    (void)sleep(EXIT_S);
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(*(const int *)code);
}

static bool expected; /* that the process ends */

static void tell_of_exit(void)
{
    static const char text[] = "outbox-relay: the backend, or a library of it, ended the process by exit(): "
                               "nothing is lost, and what "
                               "was not confirmed stays\n";
    if (!expected) {
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
        _exit(err_exit_code(ERR_INTERNAL));
    }
}

int loader_guard_exit(struct err *err)
{
    return atexit(tell_of_exit) == 0 ? 0 : err_set(err, ERR_INTERNAL, "out of memory");
}

void loader_expect_exit(void)
{
    expected = true;
}

void loader_bound_exit(int code)
{
    expected = true;
    static int with;
    pthread_attr_t attributes;
    pthread_t thread;
    if (!any_loaded || pthread_attr_init(&attributes) != 0) {
        return;
    }
    with = code;
    (void)pthread_attr_setstacksize(&attributes, EXIT_STACK_BYTES);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_create(&thread, &attributes, end_anyway, &with);
    (void)pthread_attr_destroy(&attributes);
}
