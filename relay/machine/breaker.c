#include "machine/breaker.h"

#include "base/bytes.h"
#include "base/printable.h"

void breaker_init(struct breaker *breaker, unsigned failures_allowed, int64_t open_min_ms,
                  int64_t open_max_ms, int64_t now_ms)
{
    *breaker = (struct breaker){.failures_allowed = failures_allowed, .prober = -1, .since_ms = now_ms};
    (void)pthread_mutex_init(&breaker->lock, NULL);
    backoff_init(&breaker->backoff, open_min_ms, open_max_ms);
}

void breaker_finish(struct breaker *breaker)
{
    (void)pthread_mutex_destroy(&breaker->lock);
}

static bool enter(struct breaker *breaker, enum breaker_state state, int64_t now_ms)
{
    bool changed = breaker->state != state;
    if (changed) {
        breaker->since_ms = now_ms;
    }
    breaker->state = state;
    if (state != BREAKER_HALF_OPEN) {
        breaker->prober = -1;
    }
    return changed;
}

enum breaker_answer breaker_ask(struct breaker *breaker, int worker, int64_t now_ms, int64_t *wait_until_ms)
{
    (void)pthread_mutex_lock(&breaker->lock);
    enum breaker_answer answer = BREAKER_WAIT;
    if (breaker->state == BREAKER_OPEN && now_ms >= breaker->until_ms) {
        (void)enter(breaker, BREAKER_HALF_OPEN, now_ms);
        breaker->prober = worker;
    }
    if (breaker->state == BREAKER_CLOSED) {
        answer = BREAKER_PASS;
    } else if (breaker->state == BREAKER_HALF_OPEN && (breaker->prober == worker || breaker->prober < 0)) {
        breaker->prober = worker;
        answer = BREAKER_PROBE;
    }
    *wait_until_ms = breaker->state == BREAKER_OPEN ? breaker->until_ms : now_ms + 1000;
    (void)pthread_mutex_unlock(&breaker->lock);
    return answer;
}

static bool close_breaker(struct breaker *breaker, int64_t now_ms)
{
    breaker->failures = 0;
    breaker->busy = false;
    breaker->reason[0] = '\0';
    backoff_reset(&breaker->backoff);
    return enter(breaker, BREAKER_CLOSED, now_ms);
}

bool breaker_succeeded(struct breaker *breaker, int64_t now_ms)
{
    (void)pthread_mutex_lock(&breaker->lock);
    /* A confirm that was under way when the breaker opened says nothing about now. */
    bool changed = breaker->state != BREAKER_OPEN && close_breaker(breaker, now_ms);
    (void)pthread_mutex_unlock(&breaker->lock);
    return changed;
}

static bool open_breaker(struct breaker *breaker, const char *reason, int64_t wait_ms, int64_t now_ms)
{
    printable_copy(breaker->reason, sizeof breaker->reason, bytes_of(reason));
    breaker->until_ms = now_ms + wait_ms;
    return enter(breaker, BREAKER_OPEN, now_ms);
}

bool breaker_failed(struct breaker *breaker, const char *reason, int64_t now_ms)
{
    (void)pthread_mutex_lock(&breaker->lock);
    bool changed = false;
    breaker->failures++;
    if (breaker->state == BREAKER_HALF_OPEN ||
        (breaker->state == BREAKER_CLOSED && breaker->failures >= breaker->failures_allowed)) {
        breaker->busy = false;
        changed = open_breaker(breaker, reason, backoff_next_ms(&breaker->backoff), now_ms);
    }
    (void)pthread_mutex_unlock(&breaker->lock);
    return changed;
}

bool breaker_busy(struct breaker *breaker, const char *reason, int64_t retry_after_ms, int64_t now_ms)
{
    (void)pthread_mutex_lock(&breaker->lock);
    int64_t wait_ms = retry_after_ms > 0 ? retry_after_ms : backoff_next_ms(&breaker->backoff);
    bool changed = open_breaker(breaker, reason, wait_ms, now_ms);
    breaker->busy = true;
    (void)pthread_mutex_unlock(&breaker->lock);
    return changed;
}

bool breaker_pause_over(struct breaker *breaker, int64_t now_ms)
{
    (void)pthread_mutex_lock(&breaker->lock);
    bool changed = breaker->busy && close_breaker(breaker, now_ms);
    (void)pthread_mutex_unlock(&breaker->lock);
    return changed;
}

void breaker_abandon(struct breaker *breaker, int worker)
{
    (void)pthread_mutex_lock(&breaker->lock);
    if (breaker->state == BREAKER_HALF_OPEN && breaker->prober == worker) {
        breaker->prober = -1;
    }
    (void)pthread_mutex_unlock(&breaker->lock);
}

void breaker_look(struct breaker *breaker, int64_t now_ms, struct breaker_view *view)
{
    (void)pthread_mutex_lock(&breaker->lock);
    *view = (struct breaker_view){.state = breaker->state, .for_ms = now_ms - breaker->since_ms};
    view->next_try_in_ms =
        breaker->state == BREAKER_OPEN && breaker->until_ms > now_ms ? breaker->until_ms - now_ms : 0;
    printable_copy(view->reason, sizeof view->reason, bytes_of(breaker->reason));
    (void)pthread_mutex_unlock(&breaker->lock);
}
