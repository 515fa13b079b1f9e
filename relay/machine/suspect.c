#include "machine/suspect.h"

#include <string.h>

void suspect_init(struct suspect *suspect)
{
    *suspect = (struct suspect){.prober = -1};
    (void)pthread_mutex_init(&suspect->lock, NULL);
}

void suspect_finish(struct suspect *suspect)
{
    (void)pthread_mutex_destroy(&suspect->lock);
}

static bool is_on(const struct suspect *suspect)
{
    return suspect->next < suspect->count;
}

static uint64_t bit_of(int worker)
{
    return UINT64_C(1) << (worker % SUSPECT_MAX_WORKERS);
}

void suspect_begin(struct suspect *suspect, const int64_t *seqs, size_t count)
{
    (void)pthread_mutex_lock(&suspect->lock);
    if (!is_on(suspect)) {
        suspect->next = suspect->count = suspect->again_count = 0;
        suspect->second_round = false;
        suspect->prober = -1;
    }
    size_t room = SUSPECT_MAX_ROWS - suspect->count;
    size_t taken = count < room ? count : room;
    memcpy(&suspect->seqs[suspect->count], seqs, taken * sizeof *seqs);
    suspect->count += taken;
    (void)pthread_mutex_unlock(&suspect->lock);
}

enum suspect_answer suspect_ask(struct suspect *suspect, int worker, bool must_probe, int64_t *seq)
{
    (void)pthread_mutex_lock(&suspect->lock);
    enum suspect_answer answer = SUSPECT_NONE;
    if (!is_on(suspect)) {
        suspect->at_work |= bit_of(worker);
    } else {
        if (must_probe || suspect->prober < 0) {
            suspect->prober = worker;
        }
        bool alone = (suspect->at_work & ~bit_of(worker)) == 0;
        answer = suspect->prober == worker && alone ? SUSPECT_SINGLE : SUSPECT_WAIT;
        *seq = suspect->seqs[suspect->next];
    }
    (void)pthread_mutex_unlock(&suspect->lock);
    return answer;
}

static bool is_among(const int64_t *seqs, size_t from, size_t count, int64_t seq)
{
    for (size_t at = from; at < count; at++) {
        if (seqs[at] == seq) {
            return true;
        }
    }
    return false;
}

bool suspect_includes(struct suspect *suspect, int64_t seq)
{
    (void)pthread_mutex_lock(&suspect->lock);
    bool includes = is_on(suspect) && (is_among(suspect->seqs, suspect->next, suspect->count, seq) ||
                                       is_among(suspect->again, 0, suspect->again_count, seq));
    (void)pthread_mutex_unlock(&suspect->lock);
    return includes;
}

bool suspect_let_go(struct suspect *suspect, int worker)
{
    (void)pthread_mutex_lock(&suspect->lock);
    bool was_at_work = (suspect->at_work & bit_of(worker)) != 0;
    suspect->at_work &= ~bit_of(worker);
    bool awaited = was_at_work && is_on(suspect);
    (void)pthread_mutex_unlock(&suspect->lock);
    return awaited;
}

/* Behind the last of the first round comes who ended its session alone, once more. */
static void begin_second_round(struct suspect *suspect)
{
    memcpy(suspect->seqs, suspect->again, suspect->again_count * sizeof suspect->again[0]);
    suspect->count = suspect->again_count;
    suspect->next = suspect->again_count = 0;
    suspect->second_round = true;
}

bool suspect_tried(struct suspect *suspect, int worker, int64_t seq, bool died)
{
    (void)pthread_mutex_lock(&suspect->lock);
    bool mine = is_on(suspect) && suspect->prober == worker && suspect->seqs[suspect->next] == seq;
    if (mine) {
        suspect->next++;
        if (died) {
            suspect->prober = -1; /* whoever has a session goes on at once */
        }
        if (died && !suspect->second_round) {
            suspect->again[suspect->again_count++] = seq;
        }
        if (!is_on(suspect) && suspect->again_count > 0) {
            begin_second_round(suspect);
        }
    }
    bool ended = mine && !is_on(suspect);
    (void)pthread_mutex_unlock(&suspect->lock);
    return ended;
}

bool suspect_abandon(struct suspect *suspect, int worker)
{
    bool awaited = suspect_let_go(suspect, worker);
    (void)pthread_mutex_lock(&suspect->lock);
    if (suspect->prober == worker) {
        suspect->prober = -1;
        awaited = awaited || is_on(suspect);
    }
    (void)pthread_mutex_unlock(&suspect->lock);
    return awaited;
}
