#include "store/mark.h"

#include "base/clock.h"

enum { REFRESH_EVERY_MS = 20, IDLE_REFRESH_EVERY_MS = 10000, FULL_EVERY_MS = 60000 };

void mark_init(struct mark *mark)
{
    *mark = (struct mark){.all = MARK_LEAST, .next_full_ms = clock_now_ms() + FULL_EVERY_MS};
    for (size_t at = 0; at < MARK_FILTERS; at++) {
        mark->filtered[at].first = MARK_LEAST;
    }
    (void)pthread_mutex_init(&mark->lock, NULL);
}

void mark_finish(struct mark *mark)
{
    (void)pthread_mutex_destroy(&mark->lock);
}

static void forget(struct mark *mark)
{
    mark->generation++;
    mark->all = MARK_LEAST;
    for (size_t at = 0; at < MARK_FILTERS; at++) {
        mark->filtered[at] = (struct mark_filtered){.first = MARK_LEAST};
    }
    mark->settled = 0;
    mark->pending = false;
}

void mark_reset(struct mark *mark)
{
    (void)pthread_mutex_lock(&mark->lock);
    forget(mark);
    (void)pthread_mutex_unlock(&mark->lock);
}

static int64_t start_of(const struct mark *mark, uint64_t filter)
{
    int64_t start = mark->all;
    for (size_t at = 0; at < MARK_FILTERS; at++) {
        const struct mark_filtered *known = &mark->filtered[at];
        start = known->filter == filter && known->first > start ? known->first : start;
    }
    return start;
}

int64_t mark_start(struct mark *mark, uint64_t filter, bool filtered, int64_t now_ms, bool *full)
{
    (void)pthread_mutex_lock(&mark->lock);
    bool due = full && now_ms >= mark->next_full_ms;
    if (due) {
        mark->next_full_ms = now_ms + FULL_EVERY_MS;
    }
    if (full) {
        *full = due;
    }
    int64_t start = due ? MARK_LEAST : filtered ? start_of(mark, filter) : mark->all;
    (void)pthread_mutex_unlock(&mark->lock);
    return start;
}

/* Idle, with everything that was handed out known to be gone, there is nothing to learn. */
static bool is_due(const struct mark *mark, enum mark_place place, bool idle, int64_t now_ms)
{
    if (now_ms < mark->next_refresh_ms[place]) {
        return false;
    }
    bool behind = !mark->pending || mark->pending_highest >= mark->all;
    return !idle || behind || now_ms >= mark->next_idle_refresh_ms;
}

bool mark_ask(struct mark *mark, enum mark_place place, uint64_t filter, bool idle, int64_t now_ms,
              struct mark_question *question)
{
    (void)pthread_mutex_lock(&mark->lock);
    bool due = is_due(mark, place, idle, now_ms);
    if (due) {
        mark->next_refresh_ms[place] = now_ms + REFRESH_EVERY_MS;
        mark->next_idle_refresh_ms = now_ms + IDLE_REFRESH_EVERY_MS;
        *question = (struct mark_question){.generation = mark->generation,
                                           .place = place,
                                           .filter = filter,
                                           .all = mark->all,
                                           .filtered = start_of(mark, filter),
                                           .settled = mark->settled,
                                           .highest = mark->pending ? mark->pending_highest : mark->settled};
    }
    (void)pthread_mutex_unlock(&mark->lock);
    return due;
}

/* The C that the answer's snapshot is good for; 0 = none. */
static int64_t settle(struct mark *mark, const struct mark_question *question,
                      const struct mark_answer *answer)
{
    bool same = mark->pending && mark->pending_highest == question->highest;
    if (!same || answer->xmin < mark->pending_xid) {
        return question->settled;
    }
    mark->pending = false;
    return mark->settled = question->highest;
}

static int64_t first_of(int64_t first, int64_t settled)
{
    return first <= settled ? first : settled + 1;
}

static void raise_marks(struct mark *mark, const struct mark_question *question,
                        const struct mark_answer *answer)
{
    int64_t settled = settle(mark, question, answer);
    if (settled > 0) {
        int64_t all = first_of(answer->first, settled);
        mark->all = all > mark->all ? all : mark->all;
        mark->filtered[question->place] =
            (struct mark_filtered){first_of(answer->first_filtered, settled), question->filter};
    }
    if (!mark->pending && answer->highest > 0 && answer->highest >= mark->settled && answer->xid > 0) {
        mark->pending = true;
        mark->pending_highest = answer->highest;
        mark->pending_xid = answer->xid;
    }
}

void mark_learn(struct mark *mark, const struct mark_question *question, const struct mark_answer *answer)
{
    (void)pthread_mutex_lock(&mark->lock);
    if (question->generation == mark->generation) {
        if (answer->highest >= 0 &&
            (answer->highest + 1 < question->all || answer->highest < question->highest)) {
            forget(mark); /* the sequence began anew: what it hands out now may lie below the mark */
        } else {
            raise_marks(mark, question, answer);
        }
    }
    (void)pthread_mutex_unlock(&mark->lock);
}

bool mark_contradicted(struct mark *mark, int64_t seq)
{
    (void)pthread_mutex_lock(&mark->lock);
    bool contradicted = seq < mark->all;
    if (contradicted) {
        forget(mark);
    }
    (void)pthread_mutex_unlock(&mark->lock);
    return contradicted;
}
