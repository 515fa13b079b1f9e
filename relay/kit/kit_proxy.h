/*
 * kit_proxy - a TCP proxy on loopback that stands between a backend and its broker and does what networks do.
 *
 * One thread, 256 connections; the broker's address may be a name. It listens to what goes to the broker.
 */
#ifndef RELAY_KIT_PROXY_H
#define RELAY_KIT_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum kit_fault {
    KIT_PASS = 0, /* everything goes through */
    KIT_REFUSE,   /* no connection is accepted, and those that stand are reset */
    KIT_HOLE,     /* nothing goes through, and who connects gets no answer at all */
    KIT_SILENCE,  /* nothing goes through, in either direction */
    KIT_DEAF,     /* what the broker says does not arrive */
    KIT_MUTE,     /* what the backend says does not arrive */
    KIT_GARBAGE,  /* the broker's bytes arrive as others */
    KIT_SLOW,     /* a few bytes at a time */
    KIT_DRIP,     /* ten of the broker's bytes a second */
    KIT_DROP,     /* what the backend says does not arrive, and a moment later connections are reset */
    KIT_END,      /* connections end with a FIN, at once */
    KIT_RESET,    /* connections are reset in place of the broker's next bytes */
    KIT_CUT,      /* connections end with a FIN after the first of the broker's next bytes */
    KIT_CLOSE     /* connections end with a FIN in the middle of the broker's next bytes */
};

struct kit_proxy;

/* `listen_port` 0: any that is free. */
int kit_proxy_start(struct kit_proxy **out, const char *host, const char *port, unsigned listen_port,
                    struct err *err) MUST_CHECK;
void kit_proxy_stop(struct kit_proxy *proxy); /* accepts NULL */

unsigned kit_proxy_port(const struct kit_proxy *proxy);
/* From now on; returns when no byte goes by the old rule any more. */
void kit_proxy_set(struct kit_proxy *proxy, enum kit_fault fault);
/* The same for the connections that stand, and for none that comes. */
void kit_proxy_set_once(struct kit_proxy *proxy, enum kit_fault fault);

/* Bytes that went from backend to broker so far. */
uint64_t kit_proxy_bytes(const struct kit_proxy *proxy);

/* From now on what goes to the broker is kept; what was kept is forgotten. */
void kit_proxy_listen(struct kit_proxy *proxy);
/* Which of the messages that bear these marks (kit_mark_number()) have gone to the broker since then; false
 * if there was more than can be kept. */
bool kit_proxy_heard(struct kit_proxy *proxy, unsigned first, size_t count, bool *heard);

/* Whether a text has gone to the broker since then. */
bool kit_proxy_heard_text(struct kit_proxy *proxy, const char *text, size_t len);

/* Whether a descriptor of this process is the proxy's own; how many it has, once all connections have ended
 * (waited for, a second at most: else more). */
bool kit_proxy_owns(struct kit_proxy *proxy, int fd);
int kit_proxy_descriptors(struct kit_proxy *proxy);

/*
 * "host:port" inside an option's value: a URL, or the address itself. Cuts `value` into what stands in front,
 * host, port and what stands behind. The port may come from the scheme. false if there is none.
 */
struct kit_address {
    char head[256];
    char host[256];
    char port[8];
    char tail[1024];
};
bool kit_address_parse(struct kit_address *address, const char *value);

/* Whether a name means this machine, so that a proxy on 127.0.0.1 may bear it. */
bool kit_address_is_here(const char *host);

#endif
