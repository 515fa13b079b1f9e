#include "failing.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/*
 * The program's own malloc comes before that of any library; what is underneath differs with the build. This
 * file is built without sanitizers: it runs before they are ready.
 */
#ifdef WITH_ASAN
#define BENEATH(name) __interceptor_##name
int __lsan_do_recoverable_leak_check(void);
#else
#define BENEATH(name) __libc_##name
#endif
void *BENEATH(malloc)(size_t bytes);
void *BENEATH(calloc)(size_t count, size_t bytes);
void *BENEATH(realloc)(void *old, size_t bytes);

#define VISIBLE __attribute__((visibility("default")))

static struct {
    const char *path;
    enum shortage shortage;
    unsigned long at; /* the allocation that fails; 0 = none */
    unsigned long seen;
    bool failed;
    bool armed;
} state;

static bool fails(void)
{
    if (!state.armed) {
        return false;
    }
    state.seen++;
    bool now = state.seen == state.at || (state.shortage == SHORT_FROM_THEN_ON && state.seen > state.at);
    state.failed = state.failed || now;
    errno = now ? ENOMEM : errno;
    return now;
}

VISIBLE void *malloc(size_t bytes)
{
    return fails() ? NULL : BENEATH(malloc)(bytes);
}

VISIBLE void *calloc(size_t count, size_t bytes)
{
    return fails() ? NULL : BENEATH(calloc)(count, bytes);
}

VISIBLE void *realloc(void *old, size_t bytes)
{
    return fails() ? NULL : BENEATH(realloc)(old, bytes);
}

VISIBLE char *strndup(const char *text, size_t max_bytes)
{
    size_t len = strnlen(text, max_bytes);
    char *copy = malloc(len + 1);
    if (copy) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

VISIBLE char *strdup(const char *text)
{
    return strndup(text, SIZE_MAX);
}

bool failing_stop(void)
{
    state.armed = false;
    return state.failed;
}

bool failing_is_first(void)
{
    return state.at == 0;
}

void torture_broken(const char *file, int line, const char *what)
{
    state.armed = false;
    (void)fprintf(stderr, "%s:%d: broken promise: %s (%s, allocation %lu%s)\n", file, line, what, state.path,
                  state.at, state.shortage == SHORT_FROM_THEN_ON ? " and all behind it" : "");
    abort();
}

/* True if an allocation failed. */
static bool walk(const char *name, torture_path *path, enum shortage shortage, unsigned long at)
{
    state.path = name;
    state.shortage = shortage;
    state.at = at;
    state.seen = 0;
    state.failed = false;
    state.armed = at > 0;
    path();
    return failing_stop();
}

void torture(const char *name, torture_path *path)
{
    unsigned long failed = 0;
    (void)walk(name, path, SHORT_ONCE, 0);
    for (int shortage = SHORT_ONCE; shortage <= SHORT_FROM_THEN_ON; shortage++) {
        for (unsigned long at = 1; walk(name, path, (enum shortage)shortage, at); at++) {
            failed++;
        }
    }
#ifdef WITH_ASAN
    if (__lsan_do_recoverable_leak_check()) {
        torture_broken(__FILE__, __LINE__, "nothing leaks");
    }
#endif
    (void)printf("%s: %lu failures\n", name, failed);
    (void)fflush(stdout);
    PROMISE(failed > 0, "a path that allocates");
}
