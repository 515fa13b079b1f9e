/* host - the services that a backend is handed: its settings, templates, the log. */
#ifndef RELAY_HOST_H
#define RELAY_HOST_H

#include "base/log.h"
#include "base/option.h"
#include "outbox_backend.h"

struct outbox_settings {
    const struct option_set *set;
};

struct host {
    struct outbox_host services; /* first, so that they find their way back */
    struct outbox_settings settings;
    const struct log *log;
    const char *name; /* the backend's */
    struct log_quota lines;
};

/* Everything is borrowed, and must outlive the backend. */
void host_init(struct host *host, const struct option_set *settings, const char *name,
               const char *client_name, const struct log *log);

#endif
