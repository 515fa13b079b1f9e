/*
 * Stress for the thread sanitizer: many threads on everything that workers share, without Criterion (it
 * cannot run under TSan).
 *
 * Ends 0 when every invariant that a single thread can see held; the sanitizer sees the rest.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/wake.h"
#include "channels/channels.h"
#include "machine/breaker.h"
#include "machine/health.h"
#include "machine/suspect.h"
#include "store/mark.h"

enum { THREADS = 8, ROUNDS = 20000 };

static struct breaker breaker;
static struct channels *channels;
static struct health health;
static struct mark mark;
static struct suspect suspect;
static struct wake waker;
static atomic_int probers;
static atomic_int violations;

static void violated(const char *what)
{
    (void)fprintf(stderr, "violated: %s\n", what);
    atomic_fetch_add(&violations, 1);
}

static void use_breaker(int thread, int round)
{
    int64_t until_ms = 0;
    enum breaker_answer answer = breaker_ask(&breaker, thread, round, &until_ms);
    if (answer == BREAKER_PROBE) {
        if (atomic_fetch_add(&probers, 1) > 0) {
            violated("one prober at a time");
        }
        atomic_fetch_sub(&probers, 1);
        (void)(round % 2 ? breaker_succeeded(&breaker, round) : breaker_failed(&breaker, "down", round));
    } else if (answer == BREAKER_PASS && round % 7 == 0) {
        (void)breaker_failed(&breaker, "down", round);
    }
    struct breaker_view view;
    breaker_look(&breaker, round, &view);
}

static void use_channels(int thread, int round)
{
    char name[32];
    struct text resting;
    text_init(&resting, 4096);
    (void)snprintf(name, sizeof name, "channel-%d", (thread + round) % 50);
    struct channel_news news;
    (void)channels_confirmed(channels, bytes_of(name), round);
    (void)channels_hold(channels, bytes_of(name), "full", 5, round, &news);
    channels_halve(channels, bytes_of(name), 500);
    channels_grow(channels, bytes_of(name));
    unsigned holds = 0;
    if (channels_allowance(channels, bytes_of(name), &holds) == 0) {
        violated("a channel may always send something");
    }
    (void)channels_resting(channels, round, &resting);
    channels_working(channels, round, &resting);
    channels_tried(channels, round, round);
    text_finish(&resting);
}

static void use_suspect(int thread, int round)
{
    static const int64_t rows[] = {1, 2, 3, 4, 5};
    int64_t seq = 0;
    if (round % 100 == 0) {
        suspect_begin(&suspect, rows, sizeof rows / sizeof rows[0]);
    }
    if (suspect_ask(&suspect, thread, false, &seq) == SUSPECT_SINGLE) {
        if (seq < 1 || seq > 5) {
            violated("a single is one of the suspects");
        }
        (void)suspect_tried(&suspect, thread, seq, round % 3 == 0);
    }
    (void)suspect_let_go(&suspect, thread);
    if (round % 50 == 0) {
        (void)suspect_abandon(&suspect, thread);
    }
}

static void use_mark(int round)
{
    struct mark_question question;
    bool full = false;
    int64_t now_ms = clock_now_ms() + round * 200;
    if (mark_ask(&mark, round % 3 ? MARK_ORDINARY : MARK_OTHERS, 1, round % 2, now_ms, &question)) {
        mark_learn(&mark, &question,
                   &(struct mark_answer){.highest = round,
                                         .xmin = round,
                                         .xid = round,
                                         .first = MARK_NONE,
                                         .first_filtered = MARK_NONE});
    }
    int64_t start = mark_start(&mark, 1, true, now_ms, &full);
    if (start < 0 && start != MARK_LEAST) {
        violated("a mark is a seq, or below them all");
    }
}

static void *run(void *context)
{
    int thread = *(int *)context;
    for (int round = 1; round <= ROUNDS; round++) {
        struct err err = {0};
        use_breaker(thread, round);
        use_channels(thread, round);
        use_suspect(thread, round);
        use_mark(round);
        (void)err_set(&err, ERR_CONNECTION, "round %d", round);
        (void)health_failed(&health, HEALTH_BACKEND, &err, round);
        (void)health_works(&health, HEALTH_BACKEND);
        if (round % 1000 == 0) {
            wake_all(&waker);
            wake_wait(&waker, wake_changes(&waker), clock_now_ms() + 1);
        }
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];
    struct err err = {0};
    breaker_init(&breaker, 3, 1, 10, 0);
    health_init(&health);
    mark_init(&mark);
    suspect_init(&suspect);
    if (channels_new(&channels, 4, 1, 10, &err) != 0 || wake_init(&waker, &err) != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return EXIT_FAILURE;
    }
    for (int at = 0; at < THREADS; at++) {
        numbers[at] = at;
        if (pthread_create(&threads[at], NULL, run, &numbers[at]) != 0) {
            return EXIT_FAILURE;
        }
    }
    for (int at = 0; at < THREADS; at++) {
        (void)pthread_join(threads[at], NULL);
    }
    channels_free(channels);
    wake_finish(&waker);
    suspect_finish(&suspect);
    mark_finish(&mark);
    health_finish(&health);
    breaker_finish(&breaker);
    return atomic_load(&violations) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
