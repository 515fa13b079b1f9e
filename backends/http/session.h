/* session - what one worker's HTTP session is made of. */
#ifndef HTTP_SESSION_H
#define HTTP_SESSION_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outbox_backend.h"
#include "settings.h"
#include "sockets.h"

enum { EXCERPT_BYTES = 200, RETRY_AFTER_BYTES = 64, REASON_BYTES = 500 };

/* One request in flight, with the curl handle that it uses again and again. */
struct transfer {
    struct session *session;
    CURL *easy;
    size_t index; /* of its message in the batch */
    struct curl_slist *headers;
    char *body;        /* a structured event; NULL = the payload itself is sent */
    size_t body_bytes; /* of the request */
    long final_status; /* once the header section of the final answer is complete */
    long status;       /* of the header section that is being read */
    size_t received;   /* bytes of headers and body */
    char retry_after[RETRY_AFTER_BYTES];
    char excerpt[EXCERPT_BYTES + 1];
    size_t excerpt_len;
    char denied[64]; /* an address that deny_private refused */
    bool tls;
    bool spoken_to; /* something had arrived before the request was sent: it was not */
    bool used;      /* on a connection that had served before */
    struct transfer *next_free;
};

struct session {
    const struct settings *settings;
    CURLM *multi; /* replaced only under the lock: interrupt() comes from another thread */
    pthread_mutex_t lock;
    struct sockets sockets;
    struct transfer *transfers;
    struct transfer *free_list;
    size_t created; /* transfers with a curl handle */
    atomic_bool interrupted;
};

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t session_now_ms(void);

/* NULL where memory is short. */
CURLM *session_multi_new(const struct settings *settings);

/* Closes every connection: what the next request meets is new. No handle may be in flight. */
void session_drop_connections(struct session *session);

/* Milliseconds until the deadline, at least 0. */
int64_t session_left_ms(int64_t deadline_ms);

#endif
