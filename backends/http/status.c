#include "status.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

enum { MIN_MS = 1000, MAX_S = 24 * 3600 };

enum outbox_verdict status_verdict(long code)
{
    switch (code) {
    case 400: /* the message itself is wrong, and will be tomorrow */
    case 413:
    case 415:
    case 422:
    case 431:
        return OUTBOX_REJECTED;
    case 401: /* the destination is wrong, or not ready: a person, or time, will mend it */
    case 402:
    case 403:
    case 404:
    case 405:
    case 406:
    case 407:
    case 408:
    case 410:
    case 411:
    case 414:
    case 425:
    case 429:
    case 451:
    case 503:
    case 504:
    case 507:
        return OUTBOX_HOLD;
    default:
        break;
    }
    if (code >= 200 && code <= 299) {
        return OUTBOX_CONFIRMED;
    }
    /* 500, and 502, a proxy's word for it, among what is left: it may be this message that breaks the
     * receiver. */
    bool destination = (code >= 100 && code <= 199) || (code >= 300 && code <= 399);
    return destination ? OUTBOX_HOLD : OUTBOX_RETRY;
}

static int64_t clamped_ms(int64_t seconds)
{
    if (seconds < 1) {
        return MIN_MS;
    }
    return (seconds > MAX_S ? (int64_t)MAX_S : seconds) * 1000;
}

int64_t status_retry_after_ms(const char *value, int64_t now_s)
{
    size_t digits = strspn(value, "0123456789");
    if (digits > 0 && value[digits] == '\0') {
        int64_t seconds = 0;
        for (size_t at = 0; at < digits && seconds <= MAX_S; at++) {
            seconds = seconds * 10 + (value[at] - '0');
        }
        return clamped_ms(seconds);
    }
    /* Dates have a comma ("Wed, 21 Oct 2015 07:28:00 GMT"); curl's parser takes much more, "20" and "12:00"
     * among it. */
    time_t date = strchr(value, ',') ? curl_getdate(value, NULL) : -1;
    return date == -1 ? 0 : clamped_ms((int64_t)date - now_s);
}
