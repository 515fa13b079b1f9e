#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "kit/kit_proxy.h"

static const char *default_port(const char *scheme, size_t len)
{
    static const struct {
        const char *scheme;
        const char *port;
    } known[] = {{"amqp", "5672"},   {"amqps", "5671"}, {"http", "80"},   {"https", "443"}, {"redis", "6379"},
                 {"rediss", "6379"}, {"nats", "4222"},  {"mqtt", "1883"}, {"mqtts", "8883"}};
    for (size_t at = 0; at < sizeof known / sizeof known[0]; at++) {
        if (strlen(known[at].scheme) == len && memcmp(known[at].scheme, scheme, len) == 0) {
            return known[at].port;
        }
    }
    return NULL;
}

static bool copy(char *out, size_t out_bytes, const char *from, size_t len)
{
    if (len >= out_bytes) {
        return false;
    }
    memcpy(out, from, len);
    out[len] = '\0';
    return true;
}

bool kit_address_parse(struct kit_address *address, const char *value)
{
    const char *authority = strstr(value, "://");
    const char *fallback = authority ? default_port(value, (size_t)(authority - value)) : NULL;
    const char *host = authority ? authority + 3 : value;
    size_t authority_len = strcspn(host, "/?#");
    for (const char *at = host; at < host + authority_len; at++) {
        if (*at == '@') { /* user name and password stand in front of the last one */
            authority_len -= (size_t)(at + 1 - host);
            host = at + 1;
        }
    }
    size_t host_len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
    if (host_len > authority_len || host_len == 0) {
        return false;
    }
    const char *port = host[host_len] == ':' ? host + host_len + 1 : NULL;
    size_t port_len = port ? strspn(port, "0123456789") : 0;
    const char *tail = port ? port + port_len : host + host_len;
    size_t brackets = host[0] == '[';
    if (port_len == 0 && (port || !fallback)) {
        return false;
    }
    return copy(address->head, sizeof address->head, value, (size_t)(host - value)) &&
           copy(address->host, sizeof address->host, host + brackets, host_len - 2 * brackets) &&
           copy(address->port, sizeof address->port, port ? port : fallback,
                port ? port_len : strlen(fallback)) &&
           copy(address->tail, sizeof address->tail, tail, strlen(tail));
}

bool kit_address_is_here(const char *host)
{
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, NULL, &hints, &found) != 0) {
        return false;
    }
    const struct sockaddr_in *address = (const struct sockaddr_in *)(const void *)found->ai_addr;
    bool here = !found->ai_next && ntohl(address->sin_addr.s_addr) == INADDR_LOOPBACK;
    freeaddrinfo(found);
    return here;
}
