#define _GNU_SOURCE /* realpath(path, NULL) under every libc */
#include "protected_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int check_part(const char *part, const struct stat *status, struct err *err)
{
    const char *what = S_ISDIR(status->st_mode) ? "directory" : "file";
    bool sticky = S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX); /* others may add, not replace */
    if (status->st_uid != 0 && status->st_uid != geteuid()) {
        return err_set(err, ERR_CONFIG, "%s %s belongs to user %u: chown it to root or to the relay's user",
                       what, part, (unsigned)status->st_uid);
    }
    if ((status->st_mode & (S_IWGRP | S_IWOTH)) && !sticky) {
        return err_set(err, ERR_CONFIG, "%s %s may be written by others (mode %04o): chmod go-w it", what,
                       part, (unsigned)status->st_mode & 07777U);
    }
    return 0;
}

/* Every directory above the file, the nearest first. `path` is cut at its slashes, and whole again
 * afterwards. */
static int check_parents(char *path, struct err *err)
{
    size_t len = strlen(path);
    int result = 0;
    for (size_t at = len; at > 0 && result == 0; at--) {
        if (path[at - 1] != '/') {
            continue;
        }
        struct stat status;
        char kept = path[at];
        path[at] = '\0';
        const char *part = path;
        result = stat(part, &status) != 0
                     ? err_set(err, ERR_CONFIG, "cannot look at %s: %s", part, strerror(errno))
                     : check_part(part, &status, err);
        path[at] = kept;
    }
    return result;
}

int protected_path_open(const char *path, char **resolved, int *fd, struct err *err)
{
    struct stat status;
    char *real = realpath(path, NULL);
    if (!real) {
        return err_set(err, ERR_CONFIG, "cannot open it: %s", strerror(errno));
    }
    int opened = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (opened < 0 || fstat(opened, &status) != 0) {
        (void)err_set(err, ERR_CONFIG, "cannot open it: %s", strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        (void)err_set(err, ERR_CONFIG, "it is not a regular file");
    } else if (check_part(real, &status, err) == 0 && check_parents(real, err) == 0) {
        *resolved = real;
        *fd = opened;
        return 0;
    }
    if (opened >= 0) {
        (void)close(opened);
    }
    free(real);
    return -1;
}
