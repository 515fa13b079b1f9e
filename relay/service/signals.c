#include "service/signals.h"

#include <signal.h>
#include <string.h>

#include "base/clock.h"

enum { SECOND_AFTER_MS = 100 };

static void wanted(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGHUP);
    (void)sigaddset(set, SIGUSR1);
    (void)sigaddset(set, SIGUSR2); /* ours alone: ends the thread */
}

static void *run(void *context)
{
    struct signals *signals = context;
    sigset_t set;
    int64_t first_ms = 0;
    wanted(&set);
    while (!atomic_load(&signals->done)) {
        int number = 0;
        if (sigwait(&set, &number) != 0) {
            continue;
        }
        if (number == SIGTERM || number == SIGINT) {
            /* The second one: a stop for other reasons (reload, end of a drain) does not count as the first;
             * nor does the same one that reaches us twice, as by timeout(1), to the process and to its group.
             */
            if (!atomic_exchange(&signals->terminate, true)) {
                first_ms = clock_now_ms();
                wake_stop(signals->wake);
            } else if (clock_now_ms() - first_ms >= SECOND_AFTER_MS) {
                wake_halt(signals->wake);
            }
        } else if (number == SIGHUP || number == SIGUSR1) {
            atomic_store(number == SIGHUP ? &signals->reload : &signals->dump, true);
            wake_all(signals->wake);
        }
    }
    return NULL;
}

int signals_start(struct signals *signals, struct wake *wake, struct err *err)
{
    sigset_t set;
    wanted(&set);
    *signals = (struct signals){.wake = wake};
    (void)signal(SIGPIPE, SIG_IGN);
    int fault = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (fault == 0) {
        fault = pthread_create(&signals->thread, NULL, run, signals);
    }
    return fault == 0 ? 0 : err_set(err, ERR_INTERNAL, "cannot watch signals: %s", strerror(fault));
}

void signals_finish(struct signals *signals)
{
    atomic_store(&signals->done, true);
    (void)pthread_kill(signals->thread, SIGUSR2);
    (void)pthread_join(signals->thread, NULL);
}
