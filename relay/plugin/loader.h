/*
 * loader - finds a backend by name or path; the only file with dlopen.
 *
 * A plugin's code runs only after its file was found on a protected path and its ELF note says that it was
 * built for this ABI. Loaded with RTLD_NOW|RTLD_LOCAL, never unloaded.
 */
#ifndef RELAY_LOADER_H
#define RELAY_LOADER_H

#include <stddef.h>

#include "base/err.h"
#include "outbox_backend.h"

enum { LOADER_DIRECTORY_BYTES = 4096 };

/*
 * Where NAME.so is looked for when NAME is not built in: beside the program, as both were installed, wherever
 * that is ("cmake --install --prefix", a package that was unpacked elsewhere); else where it was configured.
 * Returns out.
 */
const char *loader_directory(char out[LOADER_DIRECTORY_BYTES]);

/*
 * A built-in name, a name in loader_directory(), or a path with a '/' in it that must be absolute. The table
 * is the process's own, and complete: every mandatory function is there. ERR_CONFIG names file, cause and
 * fix.
 */
int loader_find(const struct outbox_backend **out, const char *value, struct err *err) MUST_CHECK;

/* What a plugin's file says about itself, without running it. ERR_CONFIG as above. *note is filled if it has
 * one. */
int loader_inspect(const char *path, struct outbox_note *note, struct err *err) MUST_CHECK;

/* The name that a plugin's file bears, without running it; "" if that cannot be told. */
void loader_name(const char *value, char *out, size_t out_bytes);

/*
 * To be called where the process is about to end with `code`: libraries of plugins may do at exit what they
 * like, and if that takes more than some seconds, the process ends without it.
 */
void loader_bound_exit(int code);

/* To be called where the process begins: if a library or a backend ends it by exit(), it says so and ends
 * with the code of an internal fault, for the work was not done. Until loader_bound_exit() or
 * loader_expect_exit(). */
int loader_guard_exit(struct err *err) MUST_CHECK;
void loader_expect_exit(void);

/* Is everything there that must be, in words that an author understands? */
int loader_check_table(const struct outbox_backend *table, struct err *err) MUST_CHECK;

#endif
