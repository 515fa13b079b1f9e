#include "kit/scaffold.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "kit/project.h"
#include "plugin/backend.h"

enum { FILE_MAX_BYTES = 64 << 10, NAME_MAX_BYTES = 31 };

/* Where each file of backends/template/ goes; "example" stands for the name in paths and texts alike. */
static const struct {
    const char *path;
    const char *text;
} files[] = {
    {"example.c", project_example},
    {"CMakeLists.txt", project_cmakelists},
    {"README.md", project_readme},
    {".github/workflows/ci.yml", project_ci},
};

static void replace(struct text *out, const char *from, const char *name)
{
    static const char placeholder[] = "example";
    for (const char *at = NULL; (at = strstr(from, placeholder)) != NULL;
         from = at + sizeof placeholder - 1) {
        text_add_bytes(out, (struct bytes){from, (size_t)(at - from)});
        text_add(out, name);
    }
    text_add(out, from);
}

static int make_parents(char *path, struct err *err)
{
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int result = mkdir(path, 0755);
        if (result != 0 && errno != EEXIST) {
            return err_set(err, ERR_USAGE, "cannot make directory %s: %s", path, strerror(errno));
        }
        *slash = '/';
    }
    return 0;
}

static int write_file(const char *path, const struct text *content, struct err *err)
{
    FILE *file = fopen(path, "wxe");
    bool written = file && fwrite(content->ptr, 1, content->len, file) == content->len;
    bool closed = file && fclose(file) == 0;
    if (!written || !closed || content->overflow) {
        return err_set(err, ERR_USAGE, "cannot write %s: %s", path, strerror(errno));
    }
    return 0;
}

static int check_name(const char *name, struct err *err)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789_";
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_BYTES || strspn(name, plain) != len || strchr("0123456789_", name[0])) {
        return err_set(
            err, ERR_USAGE,
            "'%s' is no name for a backend: small letters, digits and '_', a letter first, at most %d", name,
            NAME_MAX_BYTES);
    }
    static const char *const taken[] = {
        "test",
        "all",
        "clean",
        "install",
        "help",
        "package",
        "package_source",
        "edit_cache",
        "rebuild_cache",
        "list_install_components",
        "depend",
        "preinstall",
        "database",
        "backend",
        "instance",
        "workers",
        "channels",
        "order",
        "batch",
        "poll",
        "drain",
        "retry",
        "breaker",
        "log",
        "wakeup",
        "publish_timeout",
        "shutdown_timeout",
        "http_listen",
    };
    for (size_t at = 0; at < sizeof taken / sizeof taken[0]; at++) {
        if (strcmp(name, taken[at]) == 0) {
            return err_set(err, ERR_USAGE,
                           "'%s' means something to CMake or to the relay: choose another name", name);
        }
    }
    if (backend_find(name)) {
        return err_set(err, ERR_USAGE, "'%s' is built in: choose another name", name);
    }
    return 0;
}

int scaffold_write(const char *name, struct err *err)
{
    if (check_name(name, err) != 0) {
        return -1;
    }
    if (mkdir(name, 0755) != 0) {
        return err_set(err, ERR_USAGE, "cannot make directory %s: %s", name, strerror(errno));
    }
    int result = 0;
    for (size_t at = 0; at < sizeof files / sizeof files[0] && result == 0; at++) {
        struct text path;
        struct text content;
        text_init(&path, PATH_MAX);
        text_init(&content, FILE_MAX_BYTES);
        text_addf(&path, "%s/", name);
        replace(&path, files[at].path, name);
        replace(&content, files[at].text, name);
        result = make_parents(path.ptr, err) == 0 ? write_file(path.ptr, &content, err) : -1;
        text_finish(&path);
        text_finish(&content);
    }
    return result;
}
