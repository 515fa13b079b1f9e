/*
 * backend - the one door to brokers: finds a backend, opens it with its settings, and calls it safely.
 *
 * Checks what a backend answers before the core acts on it: a session that says OK with messages left
 * unsettled is LOST.
 */
#ifndef RELAY_BACKEND_H
#define RELAY_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/option.h"
#include "message/batch.h"
#include "outbox_backend.h"

struct backend;
struct session; /* one worker's connection to the broker */

/* The table of a built-in backend; NULL if there is none of that name. */
const struct outbox_backend *backend_find(const char *name);

/* Whether a table, which may be older than this program, has a function or field, and it is set. */
#define BACKEND_HAS(table, member)                                                                           \
    ((table)->size >= offsetof(struct outbox_backend, member) + sizeof(table)->member && (table)->member)

/* The distance from one of its options to the next, in bytes. */
size_t backend_option_bytes(const struct outbox_backend *table);

/* Its options at their defaults; see option_set_init(). A default that its own row refuses is ERR_CONFIG. */
int backend_options(struct option_set *set, const struct outbox_backend *table, struct err *err) MUST_CHECK;

/* Names of the built-in backends, NULL at the end. */
const char *const *backend_names(void);

/* *out is the caller's. settings and client_name must outlive it. */
int backend_open(struct backend **out, const struct outbox_backend *table, const struct option_set *settings,
                 const char *client_name, const struct log *log, struct err *err) MUST_CHECK;
void backend_close(struct backend *backend); /* accepts NULL; after every session was freed */
const char *backend_name(const struct backend *backend);

int backend_session_new(struct session **out, struct backend *backend, struct err *err) MUST_CHECK;
void backend_session_free(struct session *session); /* accepts NULL; disconnects first if connected */

int backend_connect(struct session *session, int64_t deadline_ms, struct err *err) MUST_CHECK;
void backend_disconnect(struct session *session);

/* Can a session connect? One that is made for the question alone, and ends with it; the error names the
 * backend. */
int backend_try(struct backend *backend, int64_t deadline_ms, struct err *err) MUST_CHECK;
int backend_is_connected(const struct session *session);

/* *retry_after_ms is set with BUSY; 0 = the core's own backoff. *err is set with anything but OK. */
enum outbox_session_state backend_publish(struct session *session, struct batch *batch, int64_t deadline_ms,
                                          int64_t *retry_after_ms, struct err *err);

/* Whether it can say by itself that a pause is over. */
bool backend_has_check(const struct backend *backend);

/* OK where the backend has no check(). */
enum outbox_session_state backend_check(struct session *session, int64_t deadline_ms, int64_t *retry_after_ms,
                                        struct err *err);

/*
 * Where the message would go, in a line of text; *known is false if the backend cannot tell. -1: it would be
 * rejected, *err says why.
 */
int backend_explain(const struct backend *backend, const struct outbox_message *message, char *out,
                    size_t out_bytes, bool *known, struct err *err) MUST_CHECK;

/* The libraries that it runs with, and warnings, as outbox_backend.library() writes them; "" if it tells
 * none. */
void backend_library(const struct outbox_backend *table, char *out, size_t out_bytes);

/* From another thread, only while a call on the session runs; the caller serialises it against the call's
 * return. */
void backend_interrupt(struct session *session);

#endif
