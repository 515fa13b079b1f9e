/* misdeeds - what the sample does wrong, one thing at a time, where it needs nothing of the sample's own. */
#ifndef MISDEEDS_H
#define MISDEEDS_H

#include <locale.h>
#include <outbox_backend.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum wrong {
    NOTHING,
    SETTLES_TWICE,
    SETTLES_AFTER_RETURN,
    SETTLES_IN_ANOTHER_THREAD,
    IGNORES_THE_DEADLINE,
    SLEEPS_IN_DISCONNECT,
    LEAKS_MEMORY,
    LEAKS_A_DESCRIPTOR,
    LEAKS_A_THREAD,
    CONFIRMS_ON_A_WRITE_ERROR,
    CONFIRMS_WITHOUT_AN_ANSWER,
    REJECTS_IN_AN_OUTAGE,
    CRASHES_ON_AN_EMPTY_PAYLOAD,
    CRASHES_ON_AN_EMPTY_BATCH,
    READS_BEYOND_THE_END,
    READS_AFTER_RETURN,
    INDEXES_THE_HEADERS,
    WRITES_INTO_THE_MESSAGE,
    EXITS,
    SAYS_OK_AND_SETTLES_NOTHING,
    SAYS_OK_AND_SENDS_NOTHING,
    SAYS_AN_UNKNOWN_STATE,
    GIVES_NO_REASON,
    GIVES_NO_ERROR_TEXT,
    IGNORES_THE_INTERRUPT,
    INTERRUPTS_SLOWLY,
    CANNOT_CONNECT_AGAIN,
    FREES_NOT_WITHOUT_CONNECT,
    TRUNCATES_AT_NUL,
    CUTS_LARGE_PAYLOADS,
    CONFIRMS_ON_ANY_ANSWER,
    KEEPS_ITS_CONNECTION,
    LEAKS_ON_A_FAILED_CONNECT,
    SLEEPS_FOR_EVER,
    RECONNECTS_WITHIN_PUBLISH,
    CONFIRMS_BY_ID,
    SKIPS_IDS_THAT_IT_HAS_SEEN,
    CONFIRMS_EMPTY_PAYLOADS_UNSENT,
    SHARES_ONE_CONNECTION,
    SHARES_ITS_BUFFER,
    HOLDS_FOR_A_DEAD_CONNECTION,
    RETRIES_FOR_A_DEAD_CONNECTION,
    BLOCKS_IN_CONNECT,
    HAS_A_TIMEOUT_PER_MESSAGE,
    TAKES_AN_ERROR_FOR_AN_ANSWER,
    CONFIRMS_THE_SECOND_ATTEMPT,
    SAYS_UNSENT_OF_WHAT_WENT,
    TELLS_A_SECRET,
    LOGS_A_SECRET,
    QUOTES_THE_PAYLOAD,
    PRINTS_THE_PAYLOAD,
    CHANGES_A_SIGNAL,
    CHANGES_THE_MASK,
    CHANGES_THE_UMASK,
    CHANGES_THE_DIRECTORY,
    CHANGES_THE_LOCALE,
    LEAVES_A_TIMER,
    CLOSES_STANDARD_INPUT,
    PRINTS_TO_STANDARD_OUTPUT,
    LEAVES_A_CHILD,
    LEAKS_MEMORY_WHEN_LOST,
    LEAKS_A_DESCRIPTOR_WHEN_LOST,
    CHECKS_NOTHING,
    EXPLAINS_BEYOND_THE_END,
    KEEPS_LATE_ANSWERS,
    CHECKS_FOR_A_RESET_ONLY,
    LEAKS_MEMORY_ON_A_FAILED_CONNECT,
    GREETS_WITH_A_TIMEOUT_PER_BYTE,
    SENDS_ALL_TO_THE_FIRST_CHANNEL,
    BREAKS_ON_A_LINE_BREAK,
    BREAKS_ON_HUGE_HEADERS,
    OVERFLOWS_A_TTL,
    SENDS_WHAT_HAS_EXPIRED,
    CHANGES_THE_LOCALE_WHEN_LOADED,
    CRASHES_AT_EXIT,
    HANGS_AT_EXIT,
    CUTS_AT_64_KIB,
    SKIPS_LOWER_SEQS,
    REMEMBERS_WHAT_IT_SENT,
    LEAVES_OUT_OLD_ONES,
    LEAVES_OUT_KEYLESS_ONES,
    PINGS_AND_DOES_NOT_READ,
    CLOSES_TWICE,
    HAS_ONE_SET_OF_SETTINGS,
    HAS_EIGHT_SESSIONS,
    CALLS_AN_OUTAGE_A_MISTAKE,
    CHECKS_DEAF_TO_INTERRUPTS,
    TRIES_AGAIN_DEAF_TO_INTERRUPTS,
    GIVES_A_DATE_FOR_A_WAIT
};

#ifndef WRONG
#define WRONG NOTHING
#endif
#define IS(what) (WRONG == (what))

/* ---- the process ---- */

static void on_signal(int number)
{
    (void)number;
}

/* What belongs to the relay. */
static void change_the_process(void)
{
    const struct itimerval later = {.it_value = {600, 0}};
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGUSR2);
    if (IS(CHANGES_A_SIGNAL)) {
        (void)signal(SIGTERM, on_signal);
    } else if (IS(CHANGES_THE_MASK)) {
        (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    } else if (IS(CHANGES_THE_UMASK)) {
        (void)umask(0);
    } else if (IS(CHANGES_THE_DIRECTORY)) {
        (void)!chdir("/");
    } else if (IS(CHANGES_THE_LOCALE)) {
        (void)setlocale(LC_ALL, "C.UTF-8");
    } else if (IS(LEAVES_A_TIMER)) {
        (void)setitimer(ITIMER_REAL, &later, NULL);
    } else if (IS(CLOSES_STANDARD_INPUT)) {
        (void)close(STDIN_FILENO);
    } else if (IS(PRINTS_TO_STANDARD_OUTPUT)) {
        (void)printf("sample: here I am\n");
    } else if (IS(LEAVES_A_CHILD) && fork() == 0) {
        _exit(0);
    }
}

static void *live_on(void *unused)
{
    (void)unused;
    while (pause() != 0) {
    }
    return NULL;
}

__attribute__((constructor)) static void at_the_beginning(void)
{
    if (IS(CHANGES_THE_LOCALE_WHEN_LOADED)) {
        (void)setlocale(LC_ALL, "C.UTF-8");
    }
}

__attribute__((destructor)) static void at_the_end(void)
{
    if (IS(CRASHES_AT_EXIT)) {
        abort();
    } else if (IS(HANGS_AT_EXIT)) {
        (void)live_on(NULL);
    }
}

#ifdef TRACE /* would show that code of ours ran before the relay had looked at the note */
__attribute__((constructor)) static void leave_a_trace(void)
{
    FILE *file = fopen(TRACE, "w");
    if (file) {
        (void)fclose(file);
    }
}
#endif

#ifdef CHATTERS
__attribute__((constructor)) static void chatter(void)
{
    (void)fprintf(stderr, "the library is \033[1mpleased\nand says so\n");
}
#endif

#ifdef STARTS_A_THREAD /* when it is loaded, and deaf to every signal, as libraries of other languages do */
__attribute__((constructor)) static void begin_a_thread(void)
{
    sigset_t all;
    sigset_t before;
    pthread_t thread;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, live_on, NULL) != 0) {
        abort();
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}
#endif

/* ---- the wire ---- */

/* Asks for an answer of many bytes, and waits for each. */
static bool is_greeted(int wire, const atomic_bool *interrupted)
{
    static const char ask[] = "COMMAND DOCS GET\r\nPING kit-end\r\n";
    struct pollfd fd = {.fd = wire, .events = POLLIN};
    char last[8] = "";
    if (send(fd.fd, ask, sizeof ask - 1, MSG_NOSIGNAL) < 0) {
        return false;
    }
    while (memcmp(last, "kit-end", 7) != 0) {
        memmove(last, last + 1, 6);
        if (atomic_load(interrupted) || poll(&fd, 1, 400) != 1 || recv(fd.fd, last + 6, 1, 0) != 1) {
            return false;
        }
    }
    return recv(fd.fd, last, 2, MSG_WAITALL) == 2;
}

static const char *address_in(const struct outbox_host *host, const struct outbox_settings *settings)
{
#ifdef HOST_AND_PORT
    static char both[300];
    (void)snprintf(both, sizeof both, "%s:%d", host->get_string(settings, "host"),
                   (int)host->get_int(settings, "port"));
    return both;
#else
    return host->get_string(settings, "address");
#endif
}

/* Some remember it from the first message on. */
static const char *name_for(const struct outbox_message *message)
{
    static char first[64] = "sample";
    if (IS(SENDS_ALL_TO_THE_FIRST_CHANNEL) && strcmp(first, "sample") == 0) {
        (void)snprintf(first, sizeof first, "sample %.*s", (int)message->channel.len, message->channel.ptr);
    }
    return first;
}

/* ---- verdicts ---- */

struct late {
    struct outbox_batch *batch;
    size_t index;
    int64_t wait_ms;
};

static void *settle_later(void *object)
{
    struct late *late = object;
    (void)usleep((useconds_t)late->wait_ms * 1000);
    late->batch->settle(late->batch, late->index, OUTBOX_CONFIRMED, NULL, 0);
    return NULL;
}

static void settle_in_thread(struct outbox_batch *batch, size_t index, int64_t wait_ms)
{
    static struct late late;
    pthread_t thread;
    late = (struct late){batch, index, wait_ms};
    if (pthread_create(&thread, NULL, settle_later, &late) == 0) {
        (void)(wait_ms > 0 ? pthread_detach(thread) : pthread_join(thread, NULL));
    }
}

/* Rows that some take for others that they had before, or for none of theirs. */
static bool is_left_out(const struct outbox_message *message)
{
    static _Atomic int64_t highest;
    static atomic_uchar sent[1 << 16];
    struct timespec now;
    bool lower = atomic_load(&highest) > message->seq;
    bool known = atomic_exchange(&sent[(size_t)message->seq % sizeof sent], 1) == 1;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    atomic_store(&highest, message->seq);
    return (IS(SKIPS_LOWER_SEQS) && lower) || (IS(REMEMBERS_WHAT_IT_SENT) && known) ||
           (IS(LEAVES_OUT_OLD_ONES) && message->created_at_us / 1000000 < now.tv_sec - 30 * 86400) ||
           (IS(LEAVES_OUT_KEYLESS_ONES) && message->key.len == 0);
}

/* Some that call well what did not go. */
static bool is_confirmed_unsent(const struct outbox_message *message)
{
    if (is_left_out(message)) {
        return true;
    }
    static char seen[4096][40];
    static atomic_size_t count;
    if (IS(CONFIRMS_EMPTY_PAYLOADS_UNSENT) && message->payload.len == 0) {
        return true;
    }
    if (!IS(SKIPS_IDS_THAT_IT_HAS_SEEN) || message->id.len >= sizeof seen[0]) {
        return false;
    }
    size_t known = atomic_load(&count);
    for (size_t at = 0; at < known && at < sizeof seen / sizeof seen[0]; at++) {
        if (strlen(seen[at]) == message->id.len && memcmp(seen[at], message->id.ptr, message->id.len) == 0) {
            return true;
        }
    }
    if (known < sizeof seen / sizeof seen[0]) {
        memcpy(seen[known], message->id.ptr, message->id.len);
        atomic_store(&count, known + 1);
    }
    return false;
}

/* What costs some of them the session. */
static bool is_too_much(const struct outbox_message *message)
{
    size_t bytes = 0;
    for (size_t at = 0; at < message->header_count; at++) {
        const struct outbox_header *header =
            IS(INDEXES_THE_HEADERS) ? &message->headers[at] : outbox_header_at(message, at);
        bytes += header->name.len + header->value.len;
        bytes += IS(INDEXES_THE_HEADERS) && header->value.len > 0 && header->value.ptr[0] == '?' ? 1 : 0;
    }
    return (IS(BREAKS_ON_A_LINE_BREAK) && memchr(message->channel.ptr, '\n', message->channel.len)) ||
           (IS(BREAKS_ON_HUGE_HEADERS) && bytes > 100000) || (IS(INDEXES_THE_HEADERS) && bytes > 100000000) ||
           (IS(OVERFLOWS_A_TTL) && message->ttl_ms > UINT32_MAX);
}

/* The first message of that id, and not that one. */
static size_t found_by_id(const struct outbox_batch *batch, size_t at)
{
    const struct outbox_bytes id = batch->messages[at]->id;
    size_t found = 0;
    while (IS(CONFIRMS_BY_ID) && (batch->messages[found]->id.len != id.len ||
                                  memcmp(batch->messages[found]->id.ptr, id.ptr, id.len) != 0)) {
        found++;
    }
    return IS(CONFIRMS_BY_ID) ? found : at;
}

#endif
