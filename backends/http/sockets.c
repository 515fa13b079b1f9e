#include "sockets.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

void sockets_finish(struct sockets *sockets)
{
    free(sockets->list);
    *sockets = (struct sockets){0};
}

int sockets_add(struct sockets *sockets, curl_socket_t fd)
{
    if (sockets->count == sockets->capacity) {
        size_t capacity = sockets->capacity ? 2 * sockets->capacity : 32;
        struct socket_entry *grown = realloc(sockets->list, capacity * sizeof *grown);
        if (!grown) {
            return -1;
        }
        sockets->list = grown;
        sockets->capacity = capacity;
    }
    sockets->list[sockets->count++] = (struct socket_entry){.fd = fd};
    return 0;
}

void sockets_remove(struct sockets *sockets, curl_socket_t fd)
{
    for (size_t at = 0; at < sockets->count; at++) {
        if (sockets->list[at].fd == fd) {
            sockets->list[at] = sockets->list[--sockets->count];
            return;
        }
    }
}

static int port_of(curl_socket_t fd)
{
    struct sockaddr_storage address;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    socklen_t size = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        return 0;
    }
    memcpy(&v4, &address, sizeof v4);
    memcpy(&v6, &address, sizeof v6);
    return ntohs(address.ss_family == AF_INET6 ? v6.sin6_port : v4.sin_port);
}

/* A socket has its port once it connects, and keeps it. */
static bool has_port(struct socket_entry *entry, int port)
{
    if (entry->port == 0) {
        entry->port = port_of(entry->fd);
    }
    return entry->port == port;
}

static bool is_quiet(const struct socket_entry *entry, bool tls)
{
    char byte = 0;
    bool may_speak = entry->multiplexed || (tls && !entry->used);
    return may_speak || recv(entry->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/* Towards several addresses, several sockets may have one port: then all of them are looked at. */
bool sockets_are_quiet(struct sockets *sockets, int local_port, bool tls, bool *used)
{
    bool quiet = true;
    *used = false;
    for (size_t at = 0; at < sockets->count; at++) {
        struct socket_entry *entry = &sockets->list[at];
        if (has_port(entry, local_port)) {
            quiet = is_quiet(entry, tls) && quiet;
            *used = *used || entry->used;
            entry->used = true;
        }
    }
    return quiet;
}

void sockets_set_multiplexed(struct sockets *sockets, int local_port)
{
    for (size_t at = 0; at < sockets->count; at++) {
        if (has_port(&sockets->list[at], local_port)) {
            sockets->list[at].multiplexed = true;
        }
    }
}
