/*
 * fuzz_yaml - any bytes as the configuration file: loaded or refused, never believed by half, and each fault
 * on a line of its own behind its place.
 *
 * Plugins are not loaded: what a fuzzer would name there is code of others.
 */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"
#include "config/config_print.h"
#include "fuzz.h"

enum { LOAD_MS = 3000 /* under sanitizers; some tens without */ };

static const char *file_of(const uint8_t *data, size_t bytes)
{
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("relay.yaml", 0);
        PROMISE(fd >= 0, "a memfd");
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    PROMISE(fchmod(fd, 0600) == 0, "a file that no other user may write: else it is warned of");
    PROMISE(ftruncate(fd, 0) == 0, "an empty memfd");
    PROMISE(pwrite(fd, data, bytes, 0) == (ssize_t)bytes, "a filled memfd");
    return path;
}

/* The place is one of the file, or "default" where two values contradict each other. */
static void check_faults(const struct config *config, const char *path)
{
    unsigned lines = 0;
    const char *line = text_get(&config->faults);
    for (; *line; lines++) {
        const char *end = strchr(line, '\n');
        size_t len = strlen(path);
        bool placed =
            (strncmp(line, path, len) == 0 && line[len] == ':') || strncmp(line, "default: ", 9) == 0;
        PROMISE(end, "a fault ends with a line break");
        PROMISE(placed, "every fault has a place");
        PROMISE(strstr(line, ": ") && strstr(line, ": ") + 2 < end, "every fault has a text");
        line = end + 1;
    }
    PROMISE(lines == config->fault_count || config->faults.overflow, "every fault has one line");
}

/* Without what other processes take. */
static int64_t processor_ms(void)
{
    struct timespec used;
    PROMISE(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) == 0, "a clock");
    return (int64_t)used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct config config;
    struct err err = {0};
    struct text shown;
    const char *path = file_of(data, bytes);
    int64_t began_ms = processor_ms();
    int result = config_load(&config, path, NULL, NULL, 0, CONFIG_NO_PLUGIN, &err);
    PROMISE(processor_ms() - began_ms <= LOAD_MS, "a configuration is read at once, whatever it holds");
    PROMISE((result == 0) == (config.fault_count == 0),
            "a configuration with faults is refused, and only such");
    PROMISE((result == 0) == !err_is_set(&err), "who refuses says why");
    check_faults(&config, path);
    if (result == 0) {
        text_init(&shown, 1 << 20);
        config_print_values(&config, &shown);
        PROMISE(shown.len > 0, "what was loaded can be shown");
        text_finish(&shown);
    }
    config_finish(&config);
    return 0;
}
