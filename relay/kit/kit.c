#define _GNU_SOURCE /* MAP_ANONYMOUS, strsignal */
#include "kit/kit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "kit/kit_tests.h"

enum { TICK_MS = 5 };

struct outcome {
    bool failed;
    bool skipped;
    char text[KIT_TEXT_BYTES + 200];
};

/* ---- the process that runs a test ---- */

/* Puts the proxy's address into the option that holds the broker's. */
static int reroute(struct kit_stage *stage, struct err *err)
{
    struct kit_address address;
    char text[2048];
    int index = option_find(stage->settings, stage->proxy_option);
    const struct option_value *value = &stage->settings->values[index];
    const char *current = stage->settings->table[index].type == OUTBOX_OPT_LIST && value->count > 0
                              ? value->items[0]
                              : value->text;
    if (!kit_address_parse(&address, current ? current : "")) {
        return err_set(err, ERR_CONFIG, "option '%s' holds no host:port", stage->proxy_option);
    }
    if (kit_proxy_start(&stage->proxy, address.host, address.port, err) != 0) {
        return -1;
    }
    /* A name stays, where it is this machine's: certificates are made for names. */
    bool local = strcmp(address.host, "localhost") == 0;
    (void)snprintf(text, sizeof text, "%s%s:%u%s", address.head, local ? "localhost" : "127.0.0.1",
                   kit_proxy_port(stage->proxy), address.tail);
    return option_assign(stage->settings, index, text, OPTION_FLAG, "--proxy", err);
}

/* A sanitizer's own handlers would make an ordinary exit of them. */
static void let_crashes_be_crashes(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t at = 0; at < sizeof crashes / sizeof crashes[0]; at++) {
        (void)signal(crashes[at], SIG_DFL);
    }
}

static void run_test(const struct kit_options *options, const struct kit_test *test, bool faulty,
                     struct kit_board *board)
{
    struct kit_stage stage = {.board = board,
                              .table = options->table,
                              .settings = options->settings,
                              .proxy_option = options->proxy_option};
    struct err err = {0};
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC); /* standard output belongs to the kit */
    (void)dup2(nowhere, STDOUT_FILENO);
    (void)close(nowhere);
    (void)signal(SIGPIPE, SIG_IGN); /* as the relay does */
    let_crashes_be_crashes();
    if (faulty && reroute(&stage, &err) != 0) {
        kit_fail(&stage, "the kit's proxy: %s", err.text);
    }
    host_init(&stage.host, stage.settings, options->table->name, "outbox-relay/kit", options->log);
    test->run(&stage);
    kit_proxy_stop(stage.proxy);
    atomic_store(&board->finished, true);
    _exit(0);
}

/* ---- the process that judges ---- */

static void judge_end(const struct kit_board *board, int status, struct outcome *outcome)
{
    const char *call = atomic_load(&board->call);
    const char *where = call ? call : "the backend, between two calls,";
    outcome->skipped = atomic_load(&board->skipped);
    if (outcome->skipped) {
        (void)snprintf(outcome->text, sizeof outcome->text, "%s", board->text);
    } else if (atomic_load(&board->finished) && atomic_load(&board->failed)) {
        outcome->failed = true;
        (void)snprintf(outcome->text, sizeof outcome->text, "%s", board->text);
    } else if (WIFSIGNALED(status)) {
        outcome->failed = true;
        (void)snprintf(outcome->text, sizeof outcome->text,
                       "%s crashed, or read or wrote where it must not: signal %d, %s. Run it in a debugger, "
                       "or build it with "
                       "-fsanitize=address",
                       where, WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else if (!atomic_load(&board->finished)) {
        outcome->failed = true;
        (void)snprintf(outcome->text, sizeof outcome->text,
                       "%s ended the process with exit code %d: a backend must never do that", where,
                       WEXITSTATUS(status));
    }
}

/* True once the child must be given up: a call that does not return, or a test without an end. */
static bool is_stuck(const struct kit_board *board, const struct kit_test *test, int64_t began_ms,
                     struct outcome *outcome)
{
    int64_t now_ms = clock_now_ms();
    int64_t must_end_ms = atomic_load(&board->must_end_ms);
    const char *call = atomic_load(&board->call);
    if (call && must_end_ms > 0 && now_ms - must_end_ms > KIT_HANG_MS) {
        (void)snprintf(outcome->text, sizeof outcome->text,
                       "%s has not returned %d s after it had to: wait only for what is left of the deadline",
                       call, KIT_HANG_MS / 1000);
        return true;
    }
    if (now_ms - began_ms > test->limit_ms + KIT_HANG_MS) {
        (void)snprintf(outcome->text, sizeof outcome->text, "the test did not end within %lld s",
                       (long long)(test->limit_ms + KIT_HANG_MS) / 1000);
        return true;
    }
    return false;
}

static void await_child(pid_t child, const struct kit_board *board, const struct kit_test *test,
                        struct outcome *outcome)
{
    int64_t began_ms = clock_now_ms();
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (is_stuck(board, test, began_ms, outcome)) {
            outcome->failed = true;
            (void)kill(child, SIGKILL);
            (void)waitpid(child, &status, 0);
            return;
        }
        const struct timespec tick = {0, TICK_MS * 1000000L};
        (void)nanosleep(&tick, NULL);
    }
    judge_end(board, status, outcome);
}

static int run_in_child(const struct kit_options *options, const struct kit_test *test, bool faulty,
                        struct outcome *outcome, struct err *err)
{
    *outcome = (struct outcome){0};
    struct kit_board *board =
        mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    pid_t child = fork();
    if (child == 0) {
        run_test(options, test, faulty, board);
    }
    if (child > 0) {
        await_child(child, board, test, outcome);
    }
    int saved = errno;
    (void)munmap(board, sizeof *board);
    return child > 0 ? 0 : err_set(err, ERR_INTERNAL, "cannot fork: %s", strerror(saved));
}

/* ---- TAP ---- */

struct tally {
    unsigned number;
    unsigned failed;
    unsigned skipped;
};

static int run_table(const struct kit_options *options, const struct kit_test *tests, bool faulty, FILE *out,
                     struct tally *tally, struct err *err)
{
    for (; tests->name; tests++) {
        struct outcome outcome;
        tally->number++;
        if (faulty && !options->proxy_option) {
            tally->skipped++;
            (void)fprintf(out, "ok %u - %s # SKIP needs --proxy OPTION\n", tally->number, tests->name);
            continue;
        }
        (void)fflush(out);
        if (run_in_child(options, tests, faulty, &outcome, err) != 0) {
            return -1;
        }
        tally->failed += outcome.failed;
        tally->skipped += outcome.skipped;
        (void)fprintf(out, "%sok %u - %s%s%s\n", outcome.failed ? "not " : "", tally->number, tests->name,
                      outcome.skipped ? " # SKIP " : "", outcome.skipped ? outcome.text : "");
        if (!outcome.skipped && outcome.text[0]) {
            (void)fprintf(out, "# %s\n", outcome.text);
        }
    }
    return 0;
}

static unsigned count(const struct kit_test *tests)
{
    unsigned count = 0;
    while (tests[count].name) {
        count++;
    }
    return count;
}

int kit_run(const struct kit_options *options, FILE *out, enum kit_verdict *verdict, struct err *err)
{
    static const char *const words[] = {"conformant", "partial", "NOT conformant"};
    struct tally tally = {0};
    (void)fprintf(out, "TAP version 14\n1..%u\n",
                  count(kit_contract_tests) + count(kit_resource_tests) + count(kit_fault_tests));
    if (run_table(options, kit_contract_tests, false, out, &tally, err) != 0 ||
        run_table(options, kit_resource_tests, false, out, &tally, err) != 0 ||
        run_table(options, kit_fault_tests, true, out, &tally, err) != 0) {
        return -1;
    }
    *verdict = tally.failed > 0 ? KIT_NOT_CONFORMANT : tally.skipped > 0 ? KIT_PARTIAL : KIT_CONFORMANT;
    (void)fprintf(out, "# %u tests, %u failed, %u skipped\n# %s %s (%s), backend ABI %u.%u: %s\n",
                  tally.number, tally.failed, tally.skipped, options->table->name, options->table->version,
                  options->place, OUTBOX_BACKEND_ABI_MAJOR, OUTBOX_BACKEND_ABI_MINOR, words[*verdict]);
    return 0;
}
