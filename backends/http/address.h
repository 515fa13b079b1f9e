/* address - which network addresses belong to the public internet (http.deny_private). */
#ifndef HTTP_ADDRESS_H
#define HTTP_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/*
 * True for every address that is not globally reachable, by the IANA special-purpose registries (RFC 6890):
 * private, loopback, link-local, shared, multicast, unspecified, documentation, and IPv6 forms that embed
 * such an IPv4 address. True for what is no IP address at all.
 */
bool address_is_private(const struct sockaddr *address);

/* Of this host. */
bool address_is_loopback(const struct sockaddr *address);

/* "169.254.169.254", or "" */
void address_text(const struct sockaddr *address, char *out, size_t out_bytes);

#endif
