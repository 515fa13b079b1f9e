#include "plugin/host.h"

#include "base/clock.h"
#include "base/secrets.h"
#include "message/template.h"

enum { SAID_MAX_BYTES = 2000 };

static const char *get_string(const struct outbox_settings *settings, const char *name)
{
    return option_text(settings->set, name);
}

static int64_t get_int(const struct outbox_settings *settings, const char *name)
{
    return option_number(settings->set, name);
}

static size_t get_list(const struct outbox_settings *settings, const char *name, const char *const **values)
{
    const struct option_value *value = option_get(settings->set, name);
    *values = (const char *const *)value->items;
    return value->count;
}

static size_t get_map(const struct outbox_settings *settings, const char *name, const char *const **names,
                      const char *const **values)
{
    const struct option_value *value = option_get(settings->set, name);
    *names = (const char *const *)value->names;
    *values = (const char *const *)value->items;
    return value->count;
}

static int render(const struct outbox_host *host, const char *pattern, const struct outbox_message *message,
                  char *out, size_t out_bytes)
{
    (void)host;
    return template_render(pattern, message, out, out_bytes);
}

static void log_of_backend(const struct outbox_host *host, enum outbox_log_level level, const char *text)
{
    struct host *own = (struct host *)host; /* its first member */
    int64_t unsaid = 0;
    enum log_level known =
        level >= OUTBOX_LOG_ERROR && level <= OUTBOX_LOG_DEBUG ? (enum log_level)level : LOG_ERROR;
    if (known > own->log->level || !log_may_tell(&own->lines, clock_now_ms(), &unsaid)) {
        return;
    }
    if (unsaid > 0) {
        LOG(own->log, LOG_WARNING, "the backend said more than is shown", log_text("backend", own->name),
            log_number("lines", unsaid));
    }
    char clean[SAID_MAX_BYTES];
    secrets_copy(clean, sizeof clean, bytes_of(text ? text : ""));
    LOG(own->log, known, clean, log_text("backend", own->name));
}

void host_init(struct host *host, const struct option_set *settings, const char *name,
               const char *client_name, const struct log *log)
{
    *host = (struct host){.services = {.size = sizeof(struct outbox_host),
                                       .get_string = get_string,
                                       .get_int = get_int,
                                       .get_list = get_list,
                                       .get_map = get_map,
                                       .render = render,
                                       .log = log_of_backend,
                                       .client_name = client_name},
                          .settings = {settings},
                          .log = log,
                          .name = name};
}
