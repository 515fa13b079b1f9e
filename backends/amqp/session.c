#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

int64_t session_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct timeval session_left(int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms - session_now_ms();
    if (left_ms < 0) {
        left_ms = 0;
    }
    return (struct timeval){.tv_sec = left_ms / 1000, .tv_usec = left_ms % 1000 * 1000};
}

int64_t session_ttl_ms(const struct session *session, const struct outbox_message *message)
{
    int64_t passed_ms = session->began_ms > 0 ? session_now_ms() - session->began_ms : 0;
    int64_t left_ms = message->ttl_ms - passed_ms;
    return message->ttl_ms < 0 ? -1 : left_ms > 0 ? left_ms : 0;
}

bool session_is_interrupted(struct session *session)
{
    (void)pthread_mutex_lock(&session->interrupt_lock);
    bool interrupted = session->interrupted;
    (void)pthread_mutex_unlock(&session->interrupt_lock);
    return interrupted;
}

int session_error(struct outbox_error *error, enum outbox_error_kind kind, const char *format, ...)
{
    if (error->text[0] != '\0') {
        return -1; /* the first cause is the one to tell */
    }
    va_list args;
    va_start(args, format);
    error->kind = kind;
    (void)vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    return -1;
}
