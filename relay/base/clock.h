/* clock - the two clocks of the program: monotonic for every deadline, wall for what people read. */
#ifndef RELAY_CLOCK_H
#define RELAY_CLOCK_H

#include <stdint.h>

#define CLOCK_NEVER_MS INT64_MAX

/* Milliseconds of CLOCK_MONOTONIC: deadlines and ages. */
int64_t clock_now_ms(void);

/* Microseconds of CLOCK_MONOTONIC: durations that are shown. */
int64_t clock_now_us(void);

/* Microseconds since the Unix epoch: log lines only, never a deadline. */
int64_t clock_wall_us(void);

/* now + wait, without overflow; CLOCK_NEVER_MS stays what it is. */
int64_t clock_after(int64_t now_ms, int64_t wait_ms);

/* What poll(2) takes to wait until `deadline_ms`: 0 when it has passed, at most `most_ms`. */
int clock_poll_timeout(int64_t deadline_ms, int most_ms);

#endif
