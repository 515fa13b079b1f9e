/*
 * exchange - which exchanges this session knows to exist. Each is declared before its first use, on a channel
 * of its own, so that a missing one never closes the publishing channel.
 */
#ifndef AMQP_EXCHANGE_H
#define AMQP_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

struct session;
struct outbox_error;

enum exchange_state { EXCHANGE_UNKNOWN = 0, EXCHANGE_ASKED, EXCHANGE_EXISTS, EXCHANGE_FAILED };

struct exchange {
    struct exchange *next; /* in its bucket */
    enum exchange_state state;
    char name[256];
    char reason[400]; /* why it failed, and the fix */
};

enum { EXCHANGE_BUCKETS = 256, EXCHANGES_MAX = 4096 };

struct exchanges {
    struct exchange *buckets[EXCHANGE_BUCKETS];
    unsigned count;
    struct exchange *asked; /* the one whose answer is awaited */
};

void exchanges_clear(struct exchanges *exchanges);

/* Forgets the failures: they are asked for again. */
void exchanges_forget_failures(struct exchanges *exchanges);

/*
 * EXCHANGE_EXISTS, or EXCHANGE_FAILED with *reason, asking the broker if need be; EXCHANGE_ASKED when it did
 * not answer until the deadline; EXCHANGE_UNKNOWN when the session is lost, with *error filled. The default
 * exchange always exists.
 */
enum exchange_state exchange_find(struct session *session, const char *name, int64_t deadline_ms,
                                  const char **reason, struct outbox_error *error);

/* The broker's answers on CHANNEL_DECLARE, from the frame loop. */
void exchange_declared(struct session *session);
void exchange_refused(struct session *session, int code, const char *text);

#endif
