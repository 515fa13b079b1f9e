#define _GNU_SOURCE /* memfd_create, strsignal */
#include "kit/kit_child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/printable.h"
#include "plugin/loader.h"

enum { TICK_MS = 5, SAID_MAX_BYTES = 1 << 20 };

static const char variable[] = "OUTBOX_KIT_TEST"; /* "NUMBER:BOARD:LOG", the latter two descriptors */

/* ---- in the test's process ---- */

struct role {
    unsigned number;
    int board_fd;
    int log_fd;
};

static bool read_role(struct role *role)
{
    char *at = getenv(variable);
    struct stat status;
    if (!at) {
        return false;
    }
    role->number = (unsigned)strtoul(at, &at, 10);
    role->board_fd = *at == ':' ? (int)strtol(at + 1, &at, 10) : -1;
    role->log_fd = *at == ':' ? (int)strtol(at + 1, &at, 10) : -1;
    return role->log_fd >= 0 && fstat(role->board_fd, &status) == 0 &&
           status.st_size == (off_t)sizeof(struct kit_board) && fcntl(role->log_fd, F_SETFD, FD_CLOEXEC) == 0;
}

unsigned kit_child_number(void)
{
    struct role role;
    return read_role(&role) ? role.number : 0;
}

/* Where the broker is, says one option, or one the host and another the port. */
static int read_address(const struct kit_options *options, struct kit_address *address, struct err *err)
{
    char both[600];
    const struct option_set *set = options->settings;
    const char *host = kit_option_text(set, (size_t)option_find(set, options->proxy_option));
    if (options->proxy_port_option) {
        const char *port = kit_option_text(set, (size_t)option_find(set, options->proxy_port_option));
        bool bare = host && strchr(host, ':') && host[0] != '['; /* an address of IPv6 */
        (void)snprintf(both, sizeof both, "%s%s%s:%s", bare ? "[" : "", host ? host : "", bare ? "]" : "",
                       port ? port : "");
        host = both;
    }
    if (!kit_address_parse(address, host ? host : "")) {
        return err_set(
            err, ERR_USAGE,
            "--proxy: option '%s' holds no host:port (where host and port are two options, write --proxy "
            "HOST_OPTION,PORT_OPTION)",
            options->proxy_option);
    }
    return 0;
}

static int assign(struct kit_stage *stage, const char *option, const char *text, struct err *err)
{
    return option_assign(stage->settings, option_find(stage->settings, option), text, OPTION_FLAG, "--proxy",
                         err);
}

/* Puts the proxy's address where the broker's was. */
static int reroute(struct kit_stage *stage, const struct kit_options *options, struct err *err)
{
    struct kit_address address;
    char text[2048];
    if (read_address(options, &address, err) != 0 ||
        kit_proxy_start(&stage->proxy, address.host, address.port, options->proxy_port, err) != 0) {
        return -1;
    }
    /* A name stays, where it is this machine's: certificates are made for names. */
    bool stays = kit_address_is_here(address.host);
    const char *host = stays ? address.host : "127.0.0.1";
    unsigned port = kit_proxy_port(stage->proxy);
    (void)snprintf(stage->renamed, sizeof stage->renamed, "%s", stays ? "" : address.host);
    if (!options->proxy_port_option) {
        (void)snprintf(text, sizeof text, "%s%s:%u%s", address.head, host, port, address.tail);
        return assign(stage, options->proxy_option, text, err);
    }
    (void)snprintf(text, sizeof text, "%u", port);
    return assign(stage, options->proxy_option, host, err) == 0
               ? assign(stage, options->proxy_port_option, text, err)
               : -1;
}

/* "KEY=VALUE": the option, or -1; *value is what is behind it. */
static int find_refusing(const struct option_set *settings, const char *pair, const char **value)
{
    char name[128];
    const char *equals = strchr(pair, '=');
    (void)snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - pair) : 0, pair);
    *value = equals ? equals + 1 : "";
    return equals ? option_find(settings, name) : -1;
}

static int refuse(struct kit_stage *stage, const char *pair, struct err *err)
{
    const char *value = NULL;
    int index = find_refusing(stage->settings, pair, &value);
    return option_assign(stage->settings, index, value, OPTION_FLAG, "--refusing", err);
}

int kit_check_options(const struct kit_options *options, struct err *err)
{
    struct kit_address address;
    const char *value = NULL;
    if (options->refusing && find_refusing(options->settings, options->refusing, &value) < 0) {
        return err_set(err, ERR_USAGE, "--refusing %s: write KEY=VALUE with an option of this backend",
                       options->refusing);
    }
    return options->proxy_option ? read_address(options, &address, err) : 0;
}

/* A sanitizer's own handlers would make an ordinary exit of them. */
static void let_crashes_be_crashes(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t at = 0; at < sizeof crashes / sizeof crashes[0]; at++) {
        (void)signal(crashes[at], SIG_DFL);
    }
}

void kit_before_load(void)
{
    if (kit_child_number() > 0) {
        loader_expect_exit();           /* and judges what it finds */
        (void)signal(SIGPIPE, SIG_IGN); /* as the relay does */
        let_crashes_be_crashes();
        kit_look_around();
    }
}

void kit_child_begin(const struct kit_options *options, const struct kit_test *test)
{
    struct role role = {0};
    struct err err = {0};
    bool known = read_role(&role);
    struct kit_board *board =
        known ? mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, role.board_fd, 0) : MAP_FAILED;
    if (board == MAP_FAILED) {
        _exit(1);
    }
    (void)close(role.board_fd);
    (void)unsetenv(variable);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives who judges it */
    const struct log log = {.level = LOG_DEBUG, .fd = role.log_fd};
    struct kit_stage stage = {.board = board,
                              .table = options->table,
                              .settings = options->settings,
                              .proxy_option = options->proxy_option};
    atomic_store(&board->begun, true);
    /* Where the proxy has a port of its own, the broker sends its clients there, whatever the test. */
    bool rerouted = test->needs_proxy || (options->proxy_option && options->proxy_port > 0);
    if (rerouted && reroute(&stage, options, &err) != 0) {
        kit_fail(&stage, "the kit's proxy: %s", err.text);
    }
    if (test->needs_refusing && refuse(&stage, options->refusing, &err) != 0) {
        kit_fail(&stage, "--refusing %s: %s", options->refusing, err.text);
    }
    host_init(&stage.host, stage.settings, options->table->name, "outbox-relay/kit", &log);
    test->run(&stage);
    kit_proxy_stop(stage.proxy);
    atomic_store(&board->finished, true);
    _exit(0);
}

/* ---- in the process that judges ---- */

/* What the test's process shares with this one. */
struct shared {
    struct kit_board *board;
    int board_fd;
    int log_fd;
    int error_fd;
};

static void unshare_all(struct shared *shared)
{
    const int fds[] = {shared->board_fd, shared->log_fd, shared->error_fd};
    if (shared->board != MAP_FAILED) {
        (void)munmap(shared->board, sizeof *shared->board);
    }
    for (size_t at = 0; at < sizeof fds / sizeof fds[0]; at++) {
        if (fds[at] >= 0) {
            (void)close(fds[at]);
        }
    }
}

static int share(struct shared *shared, struct err *err)
{
    *shared = (struct shared){.board = MAP_FAILED,
                              .board_fd = memfd_create("kit board", MFD_CLOEXEC),
                              .log_fd = memfd_create("kit log", MFD_CLOEXEC),
                              .error_fd = memfd_create("kit standard error", MFD_CLOEXEC)};
    if (shared->board_fd >= 0 && shared->log_fd >= 0 && shared->error_fd >= 0 &&
        ftruncate(shared->board_fd, sizeof *shared->board) == 0) {
        shared->board =
            mmap(NULL, sizeof *shared->board, PROT_READ | PROT_WRITE, MAP_SHARED, shared->board_fd, 0);
    }
    if (shared->board == MAP_FAILED) {
        (void)err_set(err, ERR_INTERNAL, "no memory to share: %s", strerror(errno));
        unshare_all(shared);
        return -1;
    }
    return 0;
}

static int spawn(pid_t *child, const struct shared *shared, unsigned number, char *const *argv,
                 struct err *err)
{
    char role[64];
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t all;
    sigset_t none;
    (void)sigfillset(&all);
    (void)sigemptyset(&none);
    (void)snprintf(role, sizeof role, "%u:%d:%d", number, shared->board_fd, shared->log_fd);
    (void)posix_spawn_file_actions_init(&files);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);
    int failure = setenv(variable, role, 1) == 0 ? 0 : errno;
    /* Standard output belongs to the kit; a descriptor that is given itself stays open. */
    failure =
        failure ? failure : posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    failure = failure ? failure : posix_spawn_file_actions_adddup2(&files, shared->error_fd, STDERR_FILENO);
    failure =
        failure ? failure : posix_spawn_file_actions_adddup2(&files, shared->board_fd, shared->board_fd);
    failure = failure ? failure : posix_spawn_file_actions_adddup2(&files, shared->log_fd, shared->log_fd);
    failure = failure ? failure : posix_spawn(child, "/proc/self/exe", &files, &attributes, argv, environ);
    (void)unsetenv(variable);
    (void)posix_spawn_file_actions_destroy(&files);
    (void)posix_spawnattr_destroy(&attributes);
    return failure == 0 ? 0 : err_set(err, ERR_INTERNAL, "cannot start a process: %s", strerror(failure));
}

static void __attribute__((format(printf, 2, 3))) fail(struct kit_outcome *outcome, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(outcome->text, sizeof outcome->text, format, args);
    va_end(args);
    outcome->failed = true;
    outcome->skipped = false;
}

static void judge_end(const struct kit_board *board, int status, struct kit_outcome *outcome)
{
    enum kit_call call = (enum kit_call)atomic_load(&board->call);
    const char *where = call != CALL_NONE ? kit_call_name(call) : "the backend, between two calls,";
    outcome->past = atomic_load(&board->past);
    outcome->reached = atomic_load(&board->reached);
    outcome->away = atomic_load(&board->away);
    outcome->skipped = atomic_load(&board->skipped);
    bool left = call == CALL_EXIT && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (left || atomic_load(&board->finished)) {
        outcome->failed = atomic_load(&board->failed);
        (void)snprintf(outcome->text, sizeof outcome->text, "%s",
                       outcome->failed || outcome->skipped ? board->text : board->note);
    } else if (!atomic_load(&board->begun)) {
        fail(outcome, "a process of its own did not come as far as the test: see what it said");
    } else if (WIFSIGNALED(status)) {
        fail(outcome, "%s crashed, or read or wrote where it must not: signal %d, %s. %s", where,
             WTERMSIG(status), strsignal(WTERMSIG(status)),
             board->hint[0] ? board->hint : "Run it in a debugger, or build it with -fsanitize=address");
    } else {
        fail(outcome, "%s ended the process with exit code %d: a backend must never do that", where,
             WEXITSTATUS(status));
    }
}

/* True once the process must be given up: a call that does not return, or a test without an end. */
static bool is_stuck(const struct kit_board *board, const struct kit_test *test, int64_t began_ms,
                     struct kit_outcome *outcome)
{
    int64_t now_ms = clock_now_ms();
    int64_t must_end_ms = atomic_load(&board->must_end_ms);
    enum kit_call call = (enum kit_call)atomic_load(&board->call);
    if (call != CALL_NONE && must_end_ms > 0 && now_ms - must_end_ms > KIT_HANG_MS) {
        fail(outcome, "%s has not returned %d s after it had to: %s", kit_call_name(call), KIT_HANG_MS / 1000,
             call == CALL_EXIT ? "end your threads in close(), and wait for nothing here"
                               : "wait only for what is left of the deadline");
        return true;
    }
    if (now_ms - began_ms > test->limit_ms + KIT_HANG_MS) {
        fail(outcome, "the test did not end within %lld s", (long long)(test->limit_ms + KIT_HANG_MS) / 1000);
        return true;
    }
    return false;
}

static void await_end(pid_t child, const struct kit_board *board, const struct kit_test *test,
                      struct kit_outcome *outcome)
{
    int64_t began_ms = clock_now_ms();
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (is_stuck(board, test, began_ms, outcome)) {
            outcome->hung = true;
            (void)kill(child, SIGKILL);
            (void)waitpid(child, &status, 0);
            return;
        }
        const struct timespec tick = {0, TICK_MS * 1000000L};
        (void)nanosleep(&tick, NULL);
    }
    judge_end(board, status, outcome);
}

/* What was written to a descriptor, as it came. */
static void read_all(int fd, struct text *out)
{
    char piece[4096];
    off_t at = 0;
    ssize_t got = 0;
    while ((got = pread(fd, piece, sizeof piece, at)) > 0) {
        text_add_bytes(out, (struct bytes){piece, (size_t)got});
        at += got;
    }
}

/* The whole line that holds a word; NULL if none does. */
static const char *line_with(const struct text *text, const char *word, size_t *len)
{
    const char *content = text_get(text);
    const char *found = memmem(content, text->len, word, strlen(word));
    if (!found) {
        return NULL;
    }
    const char *end = memchr(found, '\n', text->len - (size_t)(found - content));
    end = end ? end : content + text->len;
    while (found > content && found[-1] != '\n') {
        found--;
    }
    *len = (size_t)(end - found);
    return found;
}

/* What nobody may say stands in no line that the backend wrote or logged. */
static void judge_words(const struct text *said, const char *where, struct kit_outcome *outcome)
{
    static const char *const words[] = {KIT_SECRET, KIT_MARK};
    for (size_t at = 0; at < sizeof words / sizeof words[0] && !outcome->failed; at++) {
        char clean[300];
        size_t len = 0;
        const char *line = line_with(said, words[at], &len);
        if (line) {
            printable_copy(clean, sizeof clean, (struct bytes){line, len});
            fail(outcome, "it %s %s: %s", where,
                 at == 0 ? "a secret" : "what stands in a payload or in a header's value", clean);
        }
    }
}

int kit_child_run(const struct kit_options *options, const struct kit_test *test, unsigned number,
                  struct kit_outcome *outcome, struct text *said, struct err *err)
{
    struct shared shared;
    struct text logged;
    pid_t child = -1;
    *outcome = (struct kit_outcome){0};
    if (share(&shared, err) != 0) {
        return -1;
    }
    int result = spawn(&child, &shared, number, options->argv, err);
    if (result == 0) {
        text_init(&logged, SAID_MAX_BYTES);
        await_end(child, shared.board, test, outcome);
        read_all(shared.log_fd, &logged);
        read_all(shared.error_fd, said);
        judge_words(&logged, "logs", outcome);
        judge_words(said, "writes to standard error", outcome);
        text_finish(&logged);
    }
    unshare_all(&shared);
    return result;
}
