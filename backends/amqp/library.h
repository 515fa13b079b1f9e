/* library - librabbitmq: its headers, wherever the version at hand keeps them (0.12 moved them), and what is
 * known of the version that runs. */
#ifndef AMQP_LIBRARY_H
#define AMQP_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/time.h>

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

/*
 * "librabbitmq 0.11.0 (Debian 0.11.0-1+deb12u3)", and a line "warning: ..." for each fault that this version
 * is known to have. version: of the library that runs; package: Debian's version of what is installed, ""
 * elsewhere.
 */
void library_describe(const char *version, const char *package, char *out, size_t out_bytes);

/* Debian mends faults in versions that it keeps, which only its package's version tells. path: dpkg's status
 * file; where it or the package is missing, out is "". */
void library_read_package(const char *path, char *out, size_t out_bytes);

/* Does the library that runs stand where packages put theirs? */
bool library_is_of_system(void);

#endif
