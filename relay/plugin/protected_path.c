#define _GNU_SOURCE /* realpath(path, NULL) under every libc */
#include "plugin/protected_path.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static bool has_only_this_member(gid_t id, const char *user)
{
    const struct group *group = getgrgid(id);
    bool only = group && strcmp(group->gr_name, user) == 0;
    for (size_t at = 0; only && group->gr_mem[at]; at++) {
        only = strcmp(group->gr_mem[at], user) == 0;
    }
    return only;
}

/*
 * The group that a user has for himself (Debian's and Red Hat's way, login.defs(5) USERGROUPS_ENAB): its
 * umask is 002, and its right to write is nobody else's. It bears his name, and nobody else is in it, by
 * either way.
 */
static bool is_private_group(gid_t id, uid_t owner)
{
    char name[256] = "";
    const struct passwd *user = owner != 0 ? getpwuid(owner) : NULL;
    if (!user || user->pw_gid != id || strlen(user->pw_name) >= sizeof name) {
        return false;
    }
    memcpy(name, user->pw_name, strlen(user->pw_name) + 1);
    bool is_private = has_only_this_member(id, name);
    setpwent();
    while (is_private && (user = getpwent()) != NULL) {
        is_private = user->pw_gid != id || user->pw_uid == owner;
    }
    endpwent();
    return is_private;
}

/* Has it entries for more than its owner, its group and all others? Then the group's bits of its mode are a
 * mask, and say nothing of whose right to write it is (acl(5), CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE
 * PERMISSION BITS). */
static bool has_access_list(const char *part)
{
    ssize_t bytes = lgetxattr(part, "system.posix_acl_access", NULL, 0);
    return bytes > 0 || (bytes < 0 && errno != ENODATA && errno != ENOTSUP);
}

static int check_part(const char *part, const struct stat *status, struct err *err)
{
    const char *what = S_ISDIR(status->st_mode) ? "directory" : "file";
    bool sticky = S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX); /* others may add, not replace */
    if (status->st_uid != 0 && status->st_uid != geteuid()) {
        return err_set(err, ERR_CONFIG, "%s %s belongs to user %u: chown it to root or to the relay's user",
                       what, part, (unsigned)status->st_uid);
    }
    bool by_group = (status->st_mode & S_IWGRP) &&
                    (has_access_list(part) || !is_private_group(status->st_gid, status->st_uid));
    if ((by_group || (status->st_mode & S_IWOTH)) && !sticky) {
        return err_set(err, ERR_CONFIG, "%s %s may be written by others (mode %04o): chmod go-w it", what,
                       part, (unsigned)status->st_mode & 07777U);
    }
    return 0;
}

/*
 * Every directory above the file, the nearest first. `path` is resolved: a symbolic link that shows up now
 * was put there behind our back. It is cut at its slashes, and whole again afterwards.
 */
static int check_parents(char *path, struct err *err)
{
    int result = 0;
    for (size_t at = strlen(path); at > 0 && result == 0; at--) {
        if (path[at - 1] != '/') {
            continue;
        }
        struct stat status;
        size_t end = at > 1 ? at - 1 : 1; /* without its slash, which would follow a link; the root is one */
        char kept = path[end];
        path[end] = '\0';
        if (lstat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
            result = err_set(err, ERR_CONFIG, "%s is not a directory any more", path);
        } else {
            result = check_part(path, &status, err);
        }
        path[end] = kept;
    }
    return result;
}

/* Once nobody else can change the path, does it still lead to what was opened? */
static int check_same(const char *path, const struct stat *opened, struct err *err)
{
    struct stat now;
    if (lstat(path, &now) != 0 || now.st_dev != opened->st_dev || now.st_ino != opened->st_ino) {
        return err_set(err, ERR_CONFIG, "it was replaced while it was looked at: try again");
    }
    return 0;
}

int protected_path_open(const char *path, char **resolved, int *fd, struct err *err)
{
    struct stat status;
    char *real = realpath(path, NULL);
    if (!real) {
        return err_set(err, ERR_CONFIG, "cannot open it: %s", strerror(errno));
    }
    int opened = open(real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (opened < 0 || fstat(opened, &status) != 0) {
        (void)err_set(err, ERR_CONFIG, "cannot open it: %s", strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        (void)err_set(err, ERR_CONFIG, "it is not a regular file");
    } else if (check_part(real, &status, err) == 0 && check_parents(real, err) == 0 &&
               check_same(real, &status, err) == 0) {
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
