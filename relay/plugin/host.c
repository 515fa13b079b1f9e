#include "plugin/host.h"

#include "message/template.h"

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
    const struct host *own = (const struct host *)host;
    enum log_level known =
        level >= OUTBOX_LOG_ERROR && level <= OUTBOX_LOG_DEBUG ? (enum log_level)level : LOG_ERROR;
    LOG(own->log, known, text, log_text("backend", own->name));
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
