/* kit_resource - memory, descriptors, threads, and what a backend believes when every write fails. */
#define _GNU_SOURCE /* REG_RAX, SECCOMP */
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "kit/kit_tests.h"

enum { LIVES = 10, ROUNDS = 3, WARM_UP = 4, BIG_BYTES = 64 << 10, LEAK_BYTES = 8 };

static void live(struct kit_stage *stage)
{
    struct kit_session session;
    kit_begin(stage, &session);
    kit_publish_plain(&session, 10, "a message of one life of many");
    (void)kit_check(&session, 1000);
    kit_end(stage, &session);
}

/* ---- leaks ---- */

/* Sanitizers bring an allocator of their own. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static int64_t allocated_bytes(void)
{
    if (__sanitizer_get_current_allocated_bytes) {
        return (int64_t)__sanitizer_get_current_allocated_bytes();
    }
    struct mallinfo2 heap = mallinfo2();
    return (int64_t)(heap.uordblks + heap.hblkhd);
}

/* A leak grows with every round; caches that fill, and noise, do not. */
static void memory(struct kit_stage *stage)
{
    int64_t least = INT64_MAX;
    for (int life = 0; life < WARM_UP; life++) {
        live(stage);
    }
    for (int round = 0; round < ROUNDS; round++) {
        int64_t before = allocated_bytes();
        for (int life = 0; life < LIVES; life++) {
            live(stage);
        }
        int64_t grown = allocated_bytes() - before;
        least = grown < least ? grown : least;
    }
    if (least >= (int64_t)LIVES * LEAK_BYTES) {
        kit_fail(stage,
                 "it leaks %lld bytes of memory with each of a life (open, session_new, connect, 10 "
                 "messages, disconnect, "
                 "session_free, close)",
                 (long long)(least / LIVES));
    }
}

static int entries(const char *directory)
{
    DIR *listing = opendir(directory);
    int count = 0;
    while (listing && readdir(listing)) {
        count++;
    }
    if (listing) {
        (void)closedir(listing);
    }
    return count;
}

static void expect_no_more(struct kit_stage *stage, const char *directory, const char *what)
{
    for (int life = 0; life < WARM_UP; life++) {
        live(stage);
    }
    int before = entries(directory);
    for (int life = 0; life < LIVES; life++) {
        live(stage);
    }
    int grown = entries(directory) - before;
    if (grown >= LIVES) {
        kit_fail(stage,
                 "it leaks %d %s with each of a life (open, session_new, connect, 10 messages, disconnect, "
                 "session_free, close)",
                 grown / LIVES, what);
    }
}

int kit_count_descriptors(void)
{
    return entries("/proc/self/fd");
}

static void descriptors(struct kit_stage *stage)
{
    expect_no_more(stage, "/proc/self/fd", "file descriptors");
}

static void threads(struct kit_stage *stage)
{
    expect_no_more(stage, "/proc/self/task", "threads");
}

/* ---- every write fails ---- */

#if defined __x86_64__ || defined __aarch64__

static volatile sig_atomic_t attempts;

/* In place of the system call that the filter stopped: it failed. */
static void fail_call(int number, siginfo_t *info, void *object)
{
    ucontext_t *context = object;
    (void)number;
    (void)info;
    attempts = attempts + 1;
#ifdef __x86_64__
    context->uc_mcontext.gregs[REG_RAX] = -EIO;
#else
    context->uc_mcontext.regs[0] = (unsigned long long)-EIO;
#endif
}

#define STOP(call)                                                                                           \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)

static bool forbid_writes(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        STOP(write),
        STOP(writev),
        STOP(pwrite64),
        STOP(pwritev),
        STOP(pwritev2),
        STOP(sendto),
        STOP(sendmsg),
        STOP(sendmmsg),
        STOP(sendfile),
        STOP(splice),
        STOP(fsync),
        STOP(fdatasync),
        STOP(sync_file_range),
        STOP(msync),
        STOP(io_uring_enter),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    struct sigaction action = {.sa_sigaction = fail_call, .sa_flags = SA_SIGINFO | SA_NODEFER};
    (void)sigemptyset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

static void failing_writes(struct kit_stage *stage)
{
    const struct kit_shape big = {.payload = {NULL, BIG_BYTES}};
    struct kit_session session;
    struct kit_messages messages;
    struct kit_batch batch;
    kit_begin(stage, &session);
    kit_make(stage, &messages, 20, &big);
    if (!forbid_writes()) {
        kit_skip(stage, "this system allows no seccomp filter");
    }
    kit_publish(&batch, &session, &messages, 3000);
    size_t confirmed = kit_count(&batch, OUTBOX_CONFIRMED);
    kit_batch_finish(&batch);
    kit_disconnect(&session); /* what was buffered is written here at the latest */
    kit_session_free(&session);
    kit_close(stage);
    if (confirmed > 0 && attempts > 0) {
        kit_fail(stage,
                 "publish() confirmed %zu messages although every write, send and fsync failed: look at what "
                 "they return, "
                 "before you call settle()",
                 confirmed);
    }
}

#else

static void failing_writes(struct kit_stage *stage)
{
    kit_skip(stage, "failing writes can be tried on x86_64 and aarch64 only");
}

#endif

const struct kit_test kit_resource_tests[] = {
    {"no memory is leaked", memory, 120000},
    {"no file descriptor is leaked", descriptors, 60000},
    {"no thread is leaked", threads, 60000},
    {"nothing is confirmed when every write fails", failing_writes, 30000},
    {NULL, NULL, 0},
};
