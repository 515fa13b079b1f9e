/* exchange - which exchanges a session knows to exist, or not; declare.h asks the broker. */
#ifndef AMQP_EXCHANGE_H
#define AMQP_EXCHANGE_H

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

/* The one of that name, EXCHANGE_UNKNOWN if it is new; NULL where memory is short. */
struct exchange *exchange_add(struct exchanges *exchanges, const char *name);

/* The broker's answer about the one that was asked for. `fix` is told behind its text. */
void exchange_declared(struct exchanges *exchanges);
void exchange_refused(struct exchanges *exchanges, int code, const char *text, const char *fix);

#endif
