/* kit_interrupt - interrupt(), called from a thread of its own while another call runs. */
#include <time.h>

#include "base/clock.h"
#include "kit/kit_stage.h"

enum { AGAIN_MS = 100 }; /* as the relay's watchdog does */

/* True while there is something to interrupt, or it has not begun. */
static bool interrupt_once(struct kit_interrupt *interrupt)
{
    struct kit_session *session = interrupt->session;
    (void)pthread_mutex_lock(&session->lock);
    bool running = session->in_call;
    int64_t began_ms = clock_now_ms();
    if (running) {
        interrupt->called_ms = interrupt->called_ms ? interrupt->called_ms : began_ms;
        session->stage->table->interrupt(session->object);
    }
    int64_t took_ms = clock_now_ms() - began_ms;
    (void)pthread_mutex_unlock(&session->lock);
    if (took_ms > KIT_LATE_MS) {
        kit_fail(session->stage, "interrupt() itself took %lld ms: it must not block", (long long)took_ms);
    }
    return running || interrupt->called_ms == 0;
}

static void pause_ms(int64_t ms)
{
    const struct timespec wait = {ms / 1000, (long)(ms % 1000) * 1000000};
    (void)nanosleep(&wait, NULL); /* when interrupt() comes is the very thing under test */
}

static void *interrupt_later(void *object)
{
    struct kit_interrupt *interrupt = object;
    struct kit_session *session = interrupt->session;
    bool begun = false;
    while (!begun && !atomic_load(&interrupt->over)) {
        (void)pthread_mutex_lock(&session->lock);
        begun = session->in_call;
        (void)pthread_mutex_unlock(&session->lock);
        pause_ms(begun ? interrupt->after_ms : 1);
    }
    while (!atomic_load(&interrupt->over) && interrupt_once(interrupt)) {
        pause_ms(AGAIN_MS);
    }
    return NULL;
}

void kit_interrupt_begin(struct kit_interrupt *interrupt, struct kit_session *session, int64_t after_ms)
{
    *interrupt = (struct kit_interrupt){.session = session, .after_ms = after_ms};
    if (pthread_create(&interrupt->thread, NULL, interrupt_later, interrupt) != 0) {
        kit_fail(session->stage, "the kit cannot start a thread");
    }
}

void kit_interrupt_end(struct kit_interrupt *interrupt)
{
    int64_t now_ms = clock_now_ms();
    atomic_store(&interrupt->over, true);
    (void)pthread_join(interrupt->thread, NULL);
    if (interrupt->called_ms != 0 && now_ms - interrupt->called_ms > KIT_SOON_MS + KIT_LATE_MS / 2) {
        kit_fail(interrupt->session->stage, "interrupt() took effect after %lld ms: 1 s is what it has",
                 (long long)(now_ms - interrupt->called_ms));
    }
}
