/* kit_resource - memory, descriptors, threads, and what a backend believes when every write fails. */
#define _GNU_SOURCE /* mallinfo2 */
#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "kit/kit_tests.h"

enum { LIVES = 10, ROUNDS = 8, WARM_UP = 4, BIG_BYTES = 64 << 10, LEAK_BYTES = 8 };

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

int64_t kit_count_bytes(void)
{
    if (__sanitizer_get_current_allocated_bytes) {
        return (int64_t)__sanitizer_get_current_allocated_bytes();
    }
    struct mallinfo2 heap = mallinfo2();
    return (int64_t)(heap.uordblks + heap.hblkhd);
}

/* A leak grows with every round; caches that fill, and what threads of a library do meanwhile, do not. */
static void memory(struct kit_stage *stage)
{
    int64_t least = INT64_MAX;
    int64_t most = (int64_t)LIVES * LEAK_BYTES;
    for (int life = 0; life < WARM_UP; life++) {
        live(stage);
    }
    for (int round = 0; round < ROUNDS && least >= most; round++) {
        int64_t before = kit_count_bytes();
        for (int life = 0; life < LIVES; life++) {
            live(stage);
        }
        int64_t grown = kit_count_bytes() - before;
        least = grown < least ? grown : least;
    }
    if (least >= most) {
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

static atomic_uint attempts;

/* What wakes a thread of the same process is no write: eventfd, a pipe without a name, a pair of sockets. */
static bool is_a_wake_up(const struct seccomp_data *call)
{
    static const int writes[] = {SYS_write, SYS_writev, SYS_sendto, SYS_sendmsg, SYS_sendmmsg};
    char path[64];
    char target[64] = "";
    struct sockaddr_un peer = {0};
    socklen_t len = sizeof peer;
    bool is_write = false;
    for (size_t at = 0; at < sizeof writes / sizeof writes[0]; at++) {
        is_write = is_write || call->nr == writes[at];
    }
    int fd = (int)call->args[0];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!is_write || readlink(path, target, sizeof target - 1) < 0) {
        return false;
    }
    bool nameless = getpeername(fd, (struct sockaddr *)&peer, &len) == 0 && peer.sun_family == AF_UNIX &&
                    len == sizeof peer.sun_family;
    return strncmp(target, "pipe:", 5) == 0 || strcmp(target, "anon_inode:[eventfd]") == 0 || nameless;
}

/* Answers in place of the kernel, from a thread of its own: it failed. No signal is needed, which a library's
 * threads may block. */
static void *fail_calls(void *object)
{
    int listener = *(int *)object;
    struct seccomp_notif asked = {0};
    while (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0 || errno == EINTR || errno == ENOENT) {
        struct seccomp_notif_resp answer = {.id = asked.id, .error = -EIO};
        if (is_a_wake_up(&asked.data)) {
            answer.error = 0;
            answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        } else {
            atomic_fetch_add(&attempts, 1);
        }
        (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); /* who asked may have ended meanwhile */
        memset(&asked, 0, sizeof asked);
    }
    return NULL;
}

#define STOP(call)                                                                                           \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)

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
    static int listener = -1;
    pthread_t thread;
    const struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return false;
    }
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                            SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH |
                                SECCOMP_FILTER_FLAG_NEW_LISTENER,
                            &program);
    return listener >= 0 && pthread_create(&thread, NULL, fail_calls, &listener) == 0;
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
        kit_skip(stage, "this system allows no seccomp filter with a listener (Linux 5.7)");
    }
    kit_publish(&batch, &session, &messages, 3000);
    size_t confirmed = kit_count(&batch, OUTBOX_CONFIRMED);
    kit_batch_finish(&batch);
    kit_disconnect(&session); /* what was buffered is written here at the latest */
    kit_session_free(&session);
    kit_close(stage);
    if (confirmed > 0 && atomic_load(&attempts) > 0) {
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
    {"no memory is leaked", memory, 120000, false, false},
    {"no file descriptor is leaked", descriptors, 60000, false, false},
    {"no thread is leaked", threads, 60000, false, false},
    {"nothing is confirmed when every write fails", failing_writes, 30000, false, false},
    {NULL, NULL, 0, false, false},
};
