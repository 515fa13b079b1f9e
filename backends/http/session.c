#include "session.h"

#include <time.h>

int64_t session_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t session_left_ms(int64_t deadline_ms)
{
    int64_t left_ms = deadline_ms - session_now_ms();
    return left_ms > 0 ? left_ms : 0;
}

CURLM *session_multi_new(const struct settings *settings)
{
    CURLM *multi = curl_multi_init();
    long connections = (long)settings->max_in_flight;
    /*
     * One stream for each connection, with HTTP/2, too: libcurl 7.88 was seen to stall for seconds when many
     * requests with bodies shared one, and a connection that dies then takes one request with it, not all.
     */
    if (multi && (curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, connections) != CURLM_OK ||
                  curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, connections) != CURLM_OK ||
                  curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING) != CURLM_OK)) {
        (void)curl_multi_cleanup(multi);
        return NULL;
    }
    return multi;
}

void session_drop_connections(struct session *session)
{
    CURLM *fresh = session_multi_new(session->settings);
    (void)pthread_mutex_lock(&session->lock);
    CURLM *old = session->multi;
    session->multi = fresh;
    (void)pthread_mutex_unlock(&session->lock);
    (void)curl_multi_cleanup(old);
}
