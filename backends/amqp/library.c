#define _GNU_SOURCE /* dladdr */
#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Faults that a broker could make use of. Debian mends some in the versions that its releases keep: from
 * which update on, 0 = not yet (changelog of its package, October 2026). */
static const struct {
    int major, minor; /* of the release that mends it */
    long debian_12, debian_13;
    const char *text;
} faults[] = {
    {0, 16, 2, 1, "a broker that agrees to tiny frames can crash it (CVE-2026-44235, CVE-2026-44236)"},
    {0, 17, 3, 2, "it may read or write beyond a buffer (CVE-2026-59986, CVE-2026-61547)"},
    {0, 18, 0, 0, "a hostile broker can exhaust memory (GHSA-5fp7-wg2f-hhgp)"},
};

/* "0.11.0-1+deb12u3" of mark "+deb12u" -> 3; 0 where there is none. */
static long update_of(const char *package, const char *mark)
{
    const char *at = strstr(package, mark);
    return at ? strtol(at + strlen(mark), NULL, 10) : 0;
}

static bool is_mended(size_t fault, int major, int minor, const char *package)
{
    long debian_12 = update_of(package, "+deb12u");
    long debian_13 = update_of(package, "+deb13u");
    return major > faults[fault].major || (major == faults[fault].major && minor >= faults[fault].minor) ||
           (faults[fault].debian_12 > 0 && debian_12 >= faults[fault].debian_12) ||
           (faults[fault].debian_13 > 0 && debian_13 >= faults[fault].debian_13);
}

void library_read_package(const char *path, char *out, size_t out_bytes)
{
    static const char name[] = "Package: librabbitmq4\n";
    static const char status[] = "Status: ";
    static const char version[] = "Version: ";
    char *line = NULL;
    size_t capacity = 0;
    bool mine = false;
    bool installed = false;
    FILE *file = fopen(path, "re");
    out[0] = '\0';
    while (file && out[0] == '\0' && getline(&line, &capacity, file) > 0) {
        mine = strcmp(line, name) == 0 || (mine && line[0] != '\n');
        if (strncmp(line, status, sizeof status - 1) == 0) {
            installed = strstr(line, " installed") != NULL;
        } else if (mine && installed && strncmp(line, version, sizeof version - 1) == 0) {
            const char *text = line + sizeof version - 1;
            size_t len = strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.+-~:");
            (void)snprintf(out, out_bytes, "%.*s", (int)len, text);
        }
    }
    free(line);
    if (file) {
        (void)fclose(file);
    }
}

bool library_is_of_system(void)
{
    const char *(*version)(void) = amqp_version;
    const void *address = NULL;
    Dl_info info;
    memcpy(&address, &version, sizeof address); /* as POSIX wants it for dlsym() */
    char *path = dladdr(address, &info) != 0 ? realpath(info.dli_fname, NULL) : NULL;
    bool own = path && (strncmp(path, "/usr/lib/", 9) == 0 || strncmp(path, "/lib/", 5) == 0);
    free(path);
    return own;
}

void library_describe(const char *version, const char *package, char *out, size_t out_bytes)
{
    size_t len = strlen(version);
    /* Another library may run than the package's. */
    bool same = strncmp(package, version, len) == 0 && (package[len] == '-' || package[len] == '+');
    size_t used = (size_t)snprintf(out, out_bytes, "librabbitmq %s%s%s%s", version, same ? " (Debian " : "",
                                   same ? package : "", same ? ")" : "");
    char *rest = NULL;
    int major = (int)strtol(version, &rest, 10);
    int minor = *rest == '.' ? (int)strtol(rest + 1, NULL, 10) : 0;
    for (size_t at = 0; at < sizeof faults / sizeof faults[0] && used < out_bytes; at++) {
        if (!is_mended(at, major, minor, same ? package : "")) {
            used += (size_t)snprintf(out + used, out_bytes - used,
                                     "\nwarning: librabbitmq %s: %s; mended in %d.%d", version,
                                     faults[at].text, faults[at].major, faults[at].minor);
        }
    }
}
