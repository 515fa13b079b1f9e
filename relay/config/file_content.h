/* file_content - what stands in a file that the operator named: a regular one, or a pipe that somebody feeds.
 */
#ifndef RELAY_FILE_CONTENT_H
#define RELAY_FILE_CONTENT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct file_content {
    char *bytes; /* behind them is a NUL; may hold others */
    size_t len;
    bool others_read; /* by its mode: users who are neither its owner nor of its group */
    bool others_write;
};

/* 0, or an errno: EFBIG beyond max_bytes, ETIMEDOUT where nobody writes into a pipe for 5 s. The caller
 * finishes it. */
int file_content_read(struct file_content *content, const char *path, size_t max_bytes) MUST_CHECK;

/* Overwrites and frees it: it may be secret. Accepts a zeroed one. */
void file_content_finish(struct file_content *content);

#endif
