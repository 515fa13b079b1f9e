/* protected_path - may code be taken from this file? Only where nobody but root and ourselves can have put
 * it. */
#ifndef RELAY_PROTECTED_PATH_H
#define RELAY_PROTECTED_PATH_H

#include "base/err.h"

/*
 * Opens a regular file for reading whose path, symbolic links resolved, belongs to root or the effective user
 * all the way up and may be written by nobody else (a directory with the sticky bit may; so may the group
 * that the owner has for himself). *resolved is the caller's to free, *fd to close. ERR_CONFIG names the part
 * that is at fault, and the fix.
 */
int protected_path_open(const char *path, char **resolved, int *fd, struct err *err) MUST_CHECK;

#endif
