#include "base/clock.h"

#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now); /* cannot fail for these two clocks on Linux */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t clock_now_ms(void)
{
    return read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_now_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t clock_wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t clock_after(int64_t now_ms, int64_t wait_ms)
{
    if (wait_ms <= 0) {
        return now_ms;
    }
    return wait_ms >= CLOCK_NEVER_MS - now_ms ? CLOCK_NEVER_MS : now_ms + wait_ms;
}

int clock_poll_timeout(int64_t deadline_ms, int most_ms)
{
    int64_t left_ms = deadline_ms - clock_now_ms();
    if (left_ms <= 0) {
        return 0;
    }
    return left_ms < most_ms ? (int)left_ms : most_ms;
}
