/*
 * sockets - the sockets of a session's connections, to look at one before a request is sent on it: what has
 * arrived by then answers nothing that is about to be asked (RFC 9112, section 9.2: answers have no names,
 * only an order).
 *
 * libcurl tells a connection by its local port. All calls come from the worker's thread.
 */
#ifndef HTTP_SOCKETS_H
#define HTTP_SOCKETS_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>

struct socket_entry {
    curl_socket_t fd;
    int port;         /* the local one; 0 = not asked for yet */
    bool used;        /* a request was sent on it */
    bool multiplexed; /* HTTP/2: answers have names there, and frames may arrive at any time */
};

struct sockets {
    struct socket_entry *list;
    size_t count;
    size_t capacity;
};

void sockets_finish(struct sockets *sockets); /* accepts a zeroed one */

/* -1 where memory is short: the socket must not be used then. */
int sockets_add(struct sockets *sockets, curl_socket_t fd);
void sockets_remove(struct sockets *sockets, curl_socket_t fd);

/*
 * May a request be sent on the connection with this local port? False if bytes wait there to be read. A TLS
 * connection that was never used may have some that are no answer, and of an end both sides hear soon enough.
 * *used: whether one was sent on it before; from now on one is.
 */
bool sockets_are_quiet(struct sockets *sockets, int local_port, bool tls, bool *used);

/* An answer came by HTTP/2. */
void sockets_set_multiplexed(struct sockets *sockets, int local_port);

#endif
