#include "plugin/backend.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/secrets.h"
#include "plugin/host.h"

/* The built-in backends come through the same entry as a plugin's; CMake lists those that are compiled in. */
#define BUILTIN(name) const struct outbox_backend *outbox_backend_v1_##name(void);
#include "plugin/builtins.h"
#undef BUILTIN

struct backend {
    struct host host;
    const struct outbox_backend *table;
    void *object;
};

struct session {
    struct backend *backend;
    void *object;
    bool connected;
};

static const struct {
    const char *name;
    const struct outbox_backend *(*entry)(void);
} builtins[] = {
#define BUILTIN(name) {#name, outbox_backend_v1_##name},
#include "plugin/builtins.h"
#undef BUILTIN
    {NULL, NULL},
};

const struct outbox_backend *backend_find(const char *name)
{
    for (size_t at = 0; builtins[at].name; at++) {
        if (strcmp(builtins[at].name, name) == 0) {
            return builtins[at].entry();
        }
    }
    return NULL;
}

const char *const *backend_names(void)
{
    static const char *const names[] = {
#define BUILTIN(name) #name,
#include "plugin/builtins.h"
#undef BUILTIN
        NULL};
    return names;
}

size_t backend_option_bytes(const struct outbox_backend *table)
{
    return BACKEND_HAS(table, option_size) ? table->option_size : sizeof(struct outbox_option);
}

int backend_options(struct option_set *set, const struct outbox_backend *table, struct err *err)
{
    if (option_set_init(set, table->name, table->options, backend_option_bytes(table), err) != 0) {
        err->class = ERR_CONFIG;
        return err_prefix(err, "%s: a default in its table", table->name);
    }
    return 0;
}

/* ---- calls ---- */

static int failed(const struct outbox_error *error, struct err *err)
{
    static const enum err_class classes[] = {[OUTBOX_ERROR_UNAVAILABLE] = ERR_CONNECTION,
                                             [OUTBOX_ERROR_REFUSED] = ERR_REFUSED,
                                             [OUTBOX_ERROR_CONFIG] = ERR_CONFIG};
    bool known = error->kind >= OUTBOX_ERROR_UNAVAILABLE && error->kind <= OUTBOX_ERROR_CONFIG;
    char clean[sizeof error->text];
    secrets_copy(clean, sizeof clean, (struct bytes){error->text, strnlen(error->text, sizeof error->text)});
    return err_set(err, known ? classes[error->kind] : ERR_CONNECTION, "%s",
                   clean[0] ? clean : "the backend gave no reason");
}

int backend_open(struct backend **out, const struct outbox_backend *table, const struct option_set *settings,
                 const char *client_name, const struct log *log, struct err *err)
{
    struct backend *backend = calloc(1, sizeof *backend);
    if (!backend) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    host_init(&backend->host, settings, table->name, client_name, log);
    backend->table = table;
    struct outbox_error error = {.size = sizeof error};
    if (table->open(&backend->object, &backend->host.services, &backend->host.settings, &error) != 0) {
        free(backend);
        return failed(&error, err);
    }
    *out = backend;
    return 0;
}

void backend_close(struct backend *backend)
{
    if (backend) {
        backend->table->close(backend->object);
        free(backend);
    }
}

const char *backend_name(const struct backend *backend)
{
    return backend->table->name;
}

int backend_session_new(struct session **out, struct backend *backend, struct err *err)
{
    struct session *session = calloc(1, sizeof *session);
    if (!session) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    session->backend = backend;
    struct outbox_error error = {.size = sizeof error};
    if (backend->table->session_new(backend->object, &session->object, &error) != 0) {
        free(session);
        return failed(&error, err);
    }
    *out = session;
    return 0;
}

void backend_session_free(struct session *session)
{
    if (session) {
        backend_disconnect(session);
        session->backend->table->session_free(session->object);
        free(session);
    }
}

int backend_connect(struct session *session, int64_t deadline_ms, struct err *err)
{
    struct outbox_error error = {.size = sizeof error};
    if (session->backend->table->connect(session->object, deadline_ms, &error) != 0) {
        return failed(&error, err);
    }
    session->connected = true;
    return 0;
}

int backend_try(struct backend *backend, int64_t deadline_ms, struct err *err)
{
    struct session *session = NULL;
    if (backend_session_new(&session, backend, err) != 0 || !session) {
        return -1;
    }
    int result = backend_connect(session, deadline_ms, err);
    backend_session_free(session);
    return result == 0 ? 0 : err_prefix(err, "backend %s", backend_name(backend));
}

void backend_disconnect(struct session *session)
{
    if (session->connected) {
        session->backend->table->disconnect(session->object);
        session->connected = false;
    }
}

int backend_is_connected(const struct session *session)
{
    return session && session->connected;
}

static enum outbox_session_state judge(enum outbox_session_state state, const struct outbox_error *error,
                                       int64_t *retry_after_ms, struct err *err)
{
    *retry_after_ms = state == OUTBOX_SESSION_BUSY ? batch_clamp_ms(error->retry_after_ms) : 0;
    if (state == OUTBOX_SESSION_OK) {
        return state;
    }
    (void)failed(error, err);
    return state == OUTBOX_SESSION_BUSY ? state : OUTBOX_SESSION_LOST;
}

enum outbox_session_state backend_publish(struct session *session, struct batch *batch, int64_t deadline_ms,
                                          int64_t *retry_after_ms, struct err *err)
{
    struct outbox_error error = {.size = sizeof error};
    const struct outbox_backend *table = session->backend->table;
    enum outbox_session_state state =
        table->publish(session->object, batch_lend(batch, clock_now_ms()), deadline_ms, &error);
    batch_take_back(batch, clock_now_ms());
    if (batch->misuses > 0) {
        batch->misuses = 0;
        (void)err_set(err, ERR_INTERNAL, "backend %s settled a message twice or one that it was not given",
                      table->name);
        return OUTBOX_SESSION_LOST;
    }
    if (state == OUTBOX_SESSION_OK && batch_count_unknown(batch) > 0) {
        (void)err_set(err, ERR_INTERNAL, "backend %s said OK and left messages unsettled", table->name);
        return OUTBOX_SESSION_LOST;
    }
    if (state == OUTBOX_SESSION_OK && batch->lent.count > 0 &&
        batch_count_not_sent(batch) == batch->lent.count) {
        (void)err_set(err, ERR_INTERNAL, "backend %s said OK and sent nothing", table->name);
        return OUTBOX_SESSION_LOST; /* it would be asked again at once, for ever */
    }
    return judge(state, &error, retry_after_ms, err);
}

bool backend_has_check(const struct backend *backend)
{
    return BACKEND_HAS(backend->table, check);
}

enum outbox_session_state backend_check(struct session *session, int64_t deadline_ms, int64_t *retry_after_ms,
                                        struct err *err)
{
    struct outbox_error error = {.size = sizeof error};
    *retry_after_ms = 0;
    if (!backend_has_check(session->backend)) {
        return OUTBOX_SESSION_OK;
    }
    return judge(session->backend->table->check(session->object, deadline_ms, &error), &error, retry_after_ms,
                 err);
}

void backend_interrupt(struct session *session)
{
    const struct outbox_backend *table = session->backend->table;
    if (BACKEND_HAS(table, interrupt)) {
        table->interrupt(session->object);
    }
}

int backend_explain(const struct backend *backend, const struct outbox_message *message, char *out,
                    size_t out_bytes, bool *known, struct err *err)
{
    const struct outbox_backend *table = backend->table;
    struct outbox_error error = {.size = sizeof error};
    out[0] = '\0';
    *known = BACKEND_HAS(table, explain);
    if (*known && table->explain(backend->object, message, out, out_bytes, &error) != 0) {
        return failed(&error, err);
    }
    char *said = strndup(out, out_bytes - 1);
    if (!said) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    secrets_copy(out, out_bytes, bytes_of(said));
    free(said);
    return 0;
}

void backend_library(const struct outbox_backend *table, char *out, size_t out_bytes)
{
    out[0] = '\0';
    if (BACKEND_HAS(table, library)) {
        table->library(out, out_bytes);
    }
}
