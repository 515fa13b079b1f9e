/* torture_config - the configuration and the command line in a shortage of memory: whole, or refused with a
 * text. */
#define _GNU_SOURCE /* memfd_create */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "command/cli.h"
#include "config/config.h"
#include "config/config_print.h"
#include "failing.h"

/*
 * libyaml 0.2.5 itself loses the items of a sequence when the list of nodes cannot grow behind them
 * (yaml_parser_load_sequence). What we lose of a document shows itself in fuzz_yaml, which suppresses
 * nothing.
 */
const char *__lsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void)
{
    return "leak:yaml_parser_load";
}

static char good_file[64];
static char bad_file[64];
static char secret_file[64];

static void make_file(char path[64], const char *text)
{
    int fd = memfd_create("torture", 0);
    PROMISE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "a file in memory");
    (void)snprintf(path, 64, "/proc/self/fd/%d", fd);
}

/* What was loaded, with the backend that was found by it. */
static void check_whole(const struct config *config)
{
    static char wanted[1 << 16];
    struct text shown;
    text_init(&shown, sizeof wanted - 1);
    config_print_values(config, &shown);
    PROMISE(shown.len > 1000 && !shown.overflow, "a configuration can be shown");
    if (failing_is_first()) {
        memcpy(wanted, shown.ptr, shown.len + 1);
    }
    PROMISE(strcmp(wanted, text_get(&shown)) == 0, "every value is the one that was asked for");
    PROMISE(config->backend && strcmp(config->backend->name, "amqp") == 0, "the backend that was asked for");
    text_finish(&shown);
}

static void load_good(void)
{
    static const char *const environment[] = {"OUTBOX_WORKERS=5", "OUTBOX_CHANNELS__INCLUDE=a,b*", NULL};
    const struct config_override overrides[] = {{"log.level", "debug", "-o"},
                                                {"database_file", secret_file, "-o"},
                                                {"http.headers", "X=1,Y=2", "-o"}};
    struct config config;
    struct err err = {0};
    int result = config_load(&config, good_file, environment, overrides, 3, CONFIG_NO_PLUGIN, &err);
    bool failed = failing_stop();
    if (result == 0) {
        check_whole(&config);
    } else {
        PROMISE(failed, "without a shortage it loads");
        PROMISE(err.text[0], "who refuses says why");
    }
    config_finish(&config);
}

static void load_bad(void)
{
    static const char *const environment[] = {"OUTBOX_WORKRES=5", NULL};
    struct config config;
    struct err err = {0};
    int result = config_load(&config, bad_file, environment, NULL, 0, CONFIG_NO_PLUGIN, &err);
    bool failed = failing_stop();
    PROMISE(result == -1 && err.text[0], "a configuration with mistakes is never accepted");
    PROMISE(failed || config.fault_count == 7, "without a shortage every mistake is told");
    config_finish(&config);
}

static int no_command(struct cli *cli)
{
    (void)cli;
    return 0;
}

static void parse_command_line(void)
{
    static const struct cli_command commands[] = {{"run", "", "runs", 0, no_command}, {0}};
    /* Anew each time: what may be secret is overwritten. */
    char program[] = "outbox-relay", command[] = "run", option[] = "-o", one[] = "amqp.url=amqp://a=b",
         other[] = "-o", two[] = "workers=3", level[] = "--log-level=debug";
    char *argv[] = {program, command, option, one, other, two, level, NULL};
    struct cli cli;
    struct err err = {0};
    int result = cli_parse(&cli, 7, argv, commands, &err);
    bool failed = failing_stop();
    if (result == 0) {
        PROMISE(cli.override_count == 3, "every option");
        PROMISE(strcmp(cli.overrides[0].key, "amqp.url") == 0 && strcmp(cli.overrides[1].value, "3") == 0,
                "every option as it was written");
    } else {
        PROMISE(failed && err.text[0], "who refuses says why");
    }
    cli_finish(&cli);
}

int main(void)
{
    make_file(secret_file, "postgresql://u:secret@host/db\n");
    make_file(good_file, "backend: amqp\nworkers: 4\nbatch: { max_messages: 60, max_bytes: 1MiB }\n"
                         "amqp:\n  url:\n    - amqp://one\n    - amqp://two\n  exchange: events\n"
                         "http: { url: \"https://host/${channel}\" }\nchannels.exclude: [x, y]\n");
    make_file(bad_file,
              "wrokers: 2\nworkers: 0\npoll:\n  max: 1x\n  max: 2s\nbreaker: 5\namqp:\n  urls: [a]\n");
    torture("configuration", load_good);
    torture("configuration with mistakes", load_bad);
    torture("command line", parse_command_line);
    return 0;
}
