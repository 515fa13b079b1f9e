/*
 * kit_pair - one connection through the kit's proxy, what a fault does to it, and the tape of what went over
 * it to the broker.
 */
#ifndef RELAY_KIT_PAIR_H
#define RELAY_KIT_PAIR_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "kit/kit_proxy.h"

/* What went to the broker. Bounded: a tape that is full says so, and is then no proof of absence. */
struct kit_tape {
    char *bytes;
    size_t len;
    size_t room;
    bool full; /* or memory was short: something is missing */
};

/* Marks of kit_message `first` to `first + count - 1`: heard[number - first] becomes true. */
void kit_tape_find_marks(const struct kit_tape *tape, unsigned first, size_t count, bool *heard);

bool kit_tape_holds(const struct kit_tape *tape, const char *text, size_t len);

void kit_tape_finish(struct kit_tape *tape); /* and it may be used again */

/* One direction of a connection. */
struct kit_pipe {
    char *buffer;
    size_t from;
    size_t len;
    bool ended; /* the reading side said so */
};

struct kit_pair {
    int client; /* -1 = a free place */
    int server;
    struct kit_pipe up;    /* backend to broker */
    struct kit_pipe down;  /* broker to backend */
    size_t down_bytes;     /* since the fault was set */
    bool ended;            /* the backend was told so by a FIN: what it still says is read and dropped */
    enum kit_fault own;    /* a fault of this connection alone; KIT_PASS = that of the proxy */
    int64_t dropped_ms;    /* when the first byte was dropped (KIT_DROP); 0 = none */
    int64_t drip_ms;       /* when the last byte went (KIT_DRIP) */
    struct kit_tape *tape; /* what went to the broker; borrowed, NULL = nobody listens */
};

/* Takes `client`, also where it fails: the broker does not answer, or memory is short. */
bool kit_pair_open(struct kit_pair *pair, int client, const struct sockaddr *target, socklen_t target_len);
void kit_pair_close(struct kit_pair *pair, bool reset);

/* What there is to do at once; how many bytes went to the broker. */
size_t kit_pair_serve(struct kit_pair *pair, enum kit_fault fault);

/* What to wait for: fills two entries. */
void kit_pair_poll(const struct kit_pair *pair, enum kit_fault fault, struct pollfd fds[2]);

#endif
