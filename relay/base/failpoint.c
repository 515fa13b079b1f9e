#include "base/failpoint.h"

#ifdef RELAY_FAILPOINTS

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_CODE = 99, SLEEP_S = 3 };

static atomic_uint reached;

/* Is `word` the next of the colon-separated words at *rest? Moves on if so. */
static bool take(const char **rest, const char *word)
{
    size_t len = strlen(word);
    bool same = strncmp(*rest, word, len) == 0 && ((*rest)[len] == ':' || (*rest)[len] == '\0');
    if (same) {
        *rest += len + ((*rest)[len] == ':');
    }
    return same;
}

bool failpoint(const char *point)
{
    const char *wish = getenv("RELAY_FAIL");
    if (!wish || !take(&wish, point)) {
        return false;
    }
    const char *count = strchr(wish, ':');
    if (atomic_fetch_add(&reached, 1) + 1 != (count ? (unsigned)strtoul(count + 1, NULL, 10) : 1)) {
        return false;
    }
    if (take(&wish, "abort")) {
        (void)kill(getpid(), SIGKILL);
    } else if (take(&wish, "exit")) {
        _exit(EXIT_CODE);
    } else if (take(&wish, "sleep")) {
        struct timespec left = {.tv_sec = SLEEP_S};
        while (nanosleep(&left, &left) != 0) {
        }
    }
    return take(&wish, "error");
}

#else
typedef int failpoint_is_not_compiled_in; /* C11 wants a declaration */
#endif
