/* kit_manner - what a guest in somebody else's process must not touch, nor tell. */
#define _GNU_SOURCE /* sigset_t's bits, locale */
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kit/kit_tests.h"

enum { SIGNALS = 64, TRY_MS = 3000, SA_RESTORER_FLAG = 0x04000000 };

/* ---- the process ---- */

/* What belongs to the process, and so to the relay. */
struct surroundings {
    struct sigaction actions[SIGNALS + 1];
    sigset_t mask;
    mode_t umask;
    char directory[1024];
    char locale[512];
    struct itimerval timers[3];
    struct stat files[3]; /* standard input, output and error */
};

static void look_around(struct surroundings *found)
{
    memset(found, 0, sizeof *found);
    for (int number = 1; number <= SIGNALS; number++) {
        (void)sigaction(number, NULL, &found->actions[number]);
    }
    (void)pthread_sigmask(SIG_SETMASK, NULL, &found->mask);
    found->umask = umask(077);
    (void)umask(found->umask);
    if (!getcwd(found->directory, sizeof found->directory)) {
        found->directory[0] = '\0';
    }
    (void)snprintf(found->locale, sizeof found->locale, "%s", setlocale(LC_ALL, NULL));
    (void)getitimer(ITIMER_REAL, &found->timers[0]); /* alarm() is that one, too */
    (void)getitimer(ITIMER_VIRTUAL, &found->timers[1]);
    (void)getitimer(ITIMER_PROF, &found->timers[2]);
    for (int at = 0; at < 3; at++) {
        (void)fstat(at, &found->files[at]);
    }
}

/* Runtimes of other languages (Go's) handle some when they are loaded, on a stack of their own, and hand on
 * what is not theirs. */
static bool is_a_runtimes(int number, const struct sigaction *action)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGPIPE, SIGURG};
    bool found = false;
    for (size_t at = 0; at < sizeof numbers / sizeof numbers[0]; at++) {
        found = found || numbers[at] == number;
    }
    return found && (action->sa_flags & SA_ONSTACK);
}

static bool same_action(int number, const struct surroundings *before, const struct surroundings *after)
{
    const struct sigaction *one = &before->actions[number];
    const struct sigaction *other = &after->actions[number];
    /* Who puts back what he has found gets another flag of the C library's beside it. */
    const int flags = ~SA_RESTORER_FLAG;
    return (one->sa_handler == other->sa_handler && (one->sa_flags & flags) == (other->sa_flags & flags)) ||
           is_a_runtimes(number, other);
}

static void expect_the_same_signals(struct kit_stage *stage, const char *when,
                                    const struct surroundings *before, const struct surroundings *after)
{
    for (int number = 1; number <= SIGNALS; number++) {
        if (!same_action(number, before, after)) {
            kit_fail(stage,
                     "%sit changed what the process does on SIG%s: signals are the relay's; use MSG_NOSIGNAL "
                     "where SIGPIPE is the trouble",
                     when, sigabbrev_np(number) ? sigabbrev_np(number) : "RT");
        }
        if (sigismember(&before->mask, number) != sigismember(&after->mask, number)) {
            kit_fail(stage, "%sit changed the calling thread's signal mask (SIG%s)", when,
                     sigabbrev_np(number) ? sigabbrev_np(number) : "RT");
        }
    }
}

static void expect_no_child(struct kit_stage *stage)
{
    siginfo_t child = {0};
    if (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0) {
        kit_fail(stage, "it leaves a child process%s: wait for it before close() returns",
                 child.si_pid != 0 ? " that has ended and nobody waited for, a zombie" : "");
    }
}

static void expect_the_same(struct kit_stage *stage, const char *when, const struct surroundings *before,
                            const struct surroundings *after)
{
    static const char *const names[] = {"standard input", "standard output", "standard error"};
    expect_the_same_signals(stage, when, before, after);
    if (before->umask != after->umask) {
        kit_fail(stage, "%sit changed the umask from %03o to %03o: give files their mode when you open them",
                 when, (unsigned)before->umask, (unsigned)after->umask);
    }
    if (strcmp(before->directory, after->directory) != 0) {
        kit_fail(stage, "%sit changed the working directory: use absolute paths, or openat()", when);
    }
    if (strcmp(before->locale, after->locale) != 0) {
        kit_fail(
            stage,
            "%sit changed the locale to %s: numbers and texts of the whole process change; use uselocale()",
            when, after->locale);
    }
    if (memcmp(before->timers, after->timers, sizeof before->timers) != 0) {
        kit_fail(stage,
                 "%sit left a timer of the process running (setitimer or alarm): wait by poll() instead",
                 when);
    }
    for (int at = 0; at < 3; at++) {
        if (before->files[at].st_dev != after->files[at].st_dev ||
            before->files[at].st_ino != after->files[at].st_ino) {
            kit_fail(stage, "%sit closed or replaced %s, which is the relay's", when, names[at]);
        }
    }
}

/* In place of standard output, which for `drain` is where people and programs read: what is written is seen.
 */
static int watch_standard_output(void)
{
    char path[] = "/tmp/outbox-kit.XXXXXX";
    int watched = mkstemp(path);
    if (watched >= 0) {
        (void)unlink(path);
        (void)dup2(watched, STDOUT_FILENO);
    }
    return watched;
}

static struct surroundings unloaded; /* before the backend was there */

void kit_look_around(void)
{
    look_around(&unloaded);
}

static void left_as_it_was(struct kit_stage *stage)
{
    struct surroundings before;
    struct surroundings after;
    struct kit_session session;
    struct stat output;
    look_around(&before);
    expect_the_same(stage, "when it was loaded, ", &unloaded, &before);
    int watched = watch_standard_output();
    look_around(&before);
    kit_begin(stage, &session);
    kit_publish_plain(&session, 10, "messages");
    (void)kit_check(&session, 1000);
    look_around(&after); /* while it works, too: there are others in the process */
    expect_the_same(stage, "", &before, &after);
    kit_end(stage, &session);
    look_around(&after);
    expect_the_same(stage, "", &before, &after);
    expect_no_child(stage);
    (void)fflush(stdout);
    bool written = watched >= 0 && fstat(watched, &output) == 0 && output.st_size > 0;
    if (written && stage->proxy_option) { /* its destination is a broker */
        kit_fail(stage, "it writes to standard output, where `drain` tells its result: log by the host");
    }
    if (written) {
        kit_note(stage, "it writes to standard output: right only where that is its business");
    }
    kit_leave(stage);
}

/* ---- secrets ---- */

/* A secret in place of each: as the value, or as the password in front of the host. */
static void plant(struct kit_stage *stage)
{
    struct option_set *set = stage->settings;
    for (size_t at = 0; at < set->count; at++) {
        const struct outbox_option *row = &set->table[at];
        char text[2048];
        struct err err = {0};
        const char *value = kit_option_text(set, at);
        const char *host = value ? strstr(value, "://") : NULL;
        if ((row->flags & OUTBOX_OPT_URL) && host) {
            const char *last = strrchr(host, '@');
            (void)snprintf(text, sizeof text, "%.*s://kit:%s@%s", (int)(host - value), value, KIT_SECRET,
                           last ? last + 1 : host + 3);
        } else if ((row->flags & OUTBOX_OPT_SECRET) &&
                   (row->type == OUTBOX_OPT_STRING || row->type == OUTBOX_OPT_LIST ||
                    row->type == OUTBOX_OPT_MAP)) {
            (void)snprintf(text, sizeof text, "%s%s", row->type == OUTBOX_OPT_MAP ? "kit=" : "", KIT_SECRET);
        } else {
            continue;
        }
        if (option_assign(set, (int)at, text, OPTION_FLAG, "the kit", &err) != 0) {
            kit_fail(stage, "option '%s' takes no text that looks like a secret: %s", row->name, err.text);
        }
    }
}

/* Whether it works with them does not matter here: every text on the way is looked at, and the log. */
static void secrets_kept(struct kit_stage *stage)
{
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    plant(stage);
    if (kit_try_open(stage) != 0) {
        return;
    }
    kit_session_new(&session, stage);
    if (kit_try_connect(&session, TRY_MS) == 0) {
        kit_make(stage, &messages, 5, NULL);
        kit_publish(&batch, &session, &messages, TRY_MS);
        (void)kit_check(&session, 1000);
        kit_batch_finish(&batch);
        kit_messages_finish(&messages);
    }
    kit_end(stage, &session);
}

const struct kit_test kit_manner_tests[] = {
    {"the process is left as it was, and ends as it should", left_as_it_was, 40000, false, false},
    {"no secret stands in an error, a reason or the log", secrets_kept, 40000, false, false},
    {NULL, NULL, 0, false, false},
};
