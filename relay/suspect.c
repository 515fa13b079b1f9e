#include "suspect.h"

void suspect_init(struct suspect *suspect)
{
    *suspect = (struct suspect){.prober = -1};
    (void)pthread_mutex_init(&suspect->lock, NULL);
}

void suspect_finish(struct suspect *suspect)
{
    (void)pthread_mutex_destroy(&suspect->lock);
}

void suspect_begin(struct suspect *suspect, size_t rows)
{
    (void)pthread_mutex_lock(&suspect->lock);
    if (suspect->remaining == 0) {
        suspect->cursor = 0;
        suspect->prober = -1;
    }
    suspect->remaining = rows > suspect->remaining ? rows : suspect->remaining;
    (void)pthread_mutex_unlock(&suspect->lock);
}

enum suspect_answer suspect_ask(struct suspect *suspect, int worker, bool must_probe, int64_t *after_seq)
{
    (void)pthread_mutex_lock(&suspect->lock);
    enum suspect_answer answer = SUSPECT_NONE;
    if (suspect->remaining > 0) {
        if (must_probe || suspect->prober < 0) {
            suspect->prober = worker;
        }
        answer = suspect->prober == worker ? SUSPECT_SINGLE : SUSPECT_WAIT;
        *after_seq = suspect->cursor;
    }
    (void)pthread_mutex_unlock(&suspect->lock);
    return answer;
}

bool suspect_tried(struct suspect *suspect, int worker, int64_t seq)
{
    (void)pthread_mutex_lock(&suspect->lock);
    bool mine = suspect->remaining > 0 && suspect->prober == worker;
    if (mine) {
        suspect->remaining = seq == 0 ? 0 : suspect->remaining - 1;
        suspect->cursor = seq;
    }
    bool ended = mine && suspect->remaining == 0;
    (void)pthread_mutex_unlock(&suspect->lock);
    return ended;
}

void suspect_abandon(struct suspect *suspect, int worker)
{
    (void)pthread_mutex_lock(&suspect->lock);
    if (suspect->prober == worker) {
        suspect->prober = -1;
    }
    (void)pthread_mutex_unlock(&suspect->lock);
}
