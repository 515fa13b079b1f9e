#include "config/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secrets.h"
#include "config/config_file.h"
#include "config/file_content.h"
#include "plugin/backend.h"
#include "plugin/loader.h"
#include "postgres/pg_conninfo.h"
#include "postgres/pg_hosts.h"

enum { FILE_MAX_BYTES = 1 << 20, FAULTS_MAX_BYTES = 64 << 10 };

static const char default_file[] = "/etc/outbox-relay.yaml";

#define WAIT(name, fallback, min_ms, max_ms, help)                                                           \
    {                                                                                                        \
        name, OUTBOX_OPT_DURATION_MS, 0, fallback, NULL, min_ms, max_ms, help                                \
    }

static const struct outbox_option core_options[] = {
    {"database", OUTBOX_OPT_STRING, OUTBOX_OPT_URL, "", NULL, 0, 0,
     "libpq connection string, URI or key=value; empty = libpq's own environment"},
    {"backend", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0,
     "where messages go: a name of 'outbox-relay backends list', or the absolute path of a plugin"},
    {"instance", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "name of this process; default: host and pid"},
    {"workers", OUTBOX_OPT_INT, 0, "2", NULL, 1, 64,
     "threads, each with a database connection and a session"},
    {"channels.include", OUTBOX_OPT_LIST, 0, "*", NULL, 0, 0, "channels to carry, with * and ?"},
    {"channels.exclude", OUTBOX_OPT_LIST, 0, "", NULL, 0, 0, "channels to leave to others, with * and ?"},
    {"order", OUTBOX_OPT_CHOICE, 0, "none", "none|key", 0, 0,
     "order of delivery: none, or by key; the outbox must agree, see migrate --order"},
    {"batch.max_messages", OUTBOX_OPT_INT, 0, "500", NULL, 1, 10000, "messages in one transaction"},
    {"batch.max_bytes", OUTBOX_OPT_BYTES, 0, "8MiB", NULL, 1, 1 << 30,
     "payload in one transaction; one message always fits"},
    {"batch.max_message_bytes", OUTBOX_OPT_BYTES, 0, "128MiB", NULL, 1, 256 << 20,
     "a larger message becomes a dead letter, without being loaded"},
    WAIT("poll.min", "5ms", 1, 60000, "first wait when the outbox is empty"),
    WAIT("poll.max", "1s", 1, 60000, "longest wait when the outbox is empty"),
    WAIT("publish_timeout", "10s", 100, 600000, "deadline of one batch, and of connecting to the broker"),
    WAIT("shutdown_timeout", "20s", 0, 600000, "how long a stop waits for the batches in flight"),
    WAIT("drain.unavailable_after", "30s", 0, 86400000,
         "drain gives up when database or broker is away this long"),
    WAIT("drain.patience", "10s", 0, 86400000,
         "drain waits for rests and retries that end within this long of its last progress"),
    {"retry.max_attempts", OUTBOX_OPT_INT, 0, "10", NULL, 0, 1000000,
     "then a dead letter; 0 = never give up"},
    WAIT("retry.backoff_min", "1s", 1, 86400000, "wait after the first counted attempt"),
    WAIT("retry.backoff_max", "10m", 1, 86400000, "longest wait between attempts"),
    WAIT("retry.give_up_after", "0", 0, 0, "age at which a refused message becomes a dead letter; 0 = never"),
    {"breaker.failures", OUTBOX_OPT_INT, 0, "5", NULL, 1, 1000, "failures in a row that open the breaker"},
    WAIT("breaker.open_min", "1s", 1, 3600000, "first pause of the breaker"),
    WAIT("breaker.open_max", "60s", 1, 3600000, "longest pause of the breaker"),
    {"debuggable", OUTBOX_OPT_BOOL, 0, "false", NULL, 0, 0,
     "true at the start: core files, debuggers of this user and SSLKEYLOGFILE see secrets and messages"},
    {"log.level", OUTBOX_OPT_CHOICE, 0, "info", "error|warning|info|debug", 0, 0,
     "least important event that is logged"},
    {"log.format", OUTBOX_OPT_CHOICE, 0, "text", "text|logfmt|json", 0, 0, "shape of log lines"},
    {0},
};

/* ---- what one value says about another ---- */

static const char *place_of(const struct config *config, const char *key)
{
    return config_value(config, key)->place;
}

static void check_pair(struct config *config, const char *low, const char *high)
{
    if (config_number(config, low) > config_number(config, high)) {
        config_fault(config, place_of(config, low), "%s is above %s (%s)", low, high, place_of(config, high));
    }
}

static void check_required(struct config *config)
{
    const struct option_set *set = config->backend ? config_section(config, config->backend->name) : NULL;
    for (size_t at = 0; set && at < set->count; at++) {
        if ((set->table[at].flags & OUTBOX_OPT_REQUIRED) && !set->values[at].is_set) {
            config_fault(config, config->file[0] ? config->file : "configuration",
                         "%s.%s is required by backend %s", set->section, set->table[at].name, set->section);
        }
    }
}

/* Nothing would go, without a word. */
static void check_filter(struct config *config)
{
    const struct option_value *value = option_get(&config->core, "channels.include");
    if (value->origin != OPTION_DEFAULT && value->count == 0) {
        config_fault(config, value->place,
                     "channels.include: an empty list lets nothing through; leave it out for all channels");
    }
}

static void check_database(struct config *config)
{
    const struct option_value *value = option_get(&config->core, "database");
    struct pg_hosts hosts = {.list = NULL};
    struct err err = {0};
    if (value->text && pg_hosts_read(&hosts, value->text, &err) != 0) {
        bool twice = strcmp(value->place, "database") == 0; /* -d */
        config_fault(config, value->place, "%s", err.text + (twice ? strlen("database: ") : 0));
    }
    pg_hosts_finish(&hosts);
}

/* File and environment may describe several backends at once; who types an option means the one that runs: it
 * is told, and nothing else. */
static void warn_of_flags(struct config *config)
{
    for (size_t section = 0; section < config->section_count && config->backend; section++) {
        const struct option_set *set = &config->sections[section];
        bool runs = strcmp(set->section, config->backend->name) == 0;
        for (size_t at = 0; at < set->count && !runs; at++) {
            const struct option_value *value = &set->values[at];
            if (value->is_set && value->origin == OPTION_FLAG) {
                config_warn(config, value->place, "%s.%s is an option of backend %s, and the backend is %s",
                            set->section, set->table[at].name, set->section, config->backend->name);
            }
        }
    }
}

/* A private key is read by a library, and as good as a password. */
static void warn_of_keys(struct config *config)
{
    const struct option_set *set = config->backend ? config_section(config, config->backend->name) : NULL;
    for (size_t at = 0; set && at < set->count; at++) {
        const struct option_value *value = &set->values[at];
        const char *name = set->table[at].name;
        size_t len = strlen(name);
        struct stat status;
        if (len < 8 || strcmp(name + len - 8, "key_file") != 0 || !value->is_set || !value->text ||
            stat(value->text, &status) != 0 || !(status.st_mode & (S_IROTH | S_IWOTH))) {
            continue;
        }
        config_warn(config, value->place, "%s.%s: every user of this host can %s: chmod o= FILE",
                    set->section, name,
                    status.st_mode & S_IWOTH ? "write to that file" : "read that file, which holds a key");
    }
}

/* ---- the backend comes first: it says which options there are ---- */

struct sources {
    const char *file;            /* NULL = none */
    struct file_content content; /* read once: it may be a pipe */
    int error;                   /* errno, where there is no content */
    const char *const *environment;
    const struct config_override *overrides;
    size_t override_count;
    char *backend; /* its name, by a first reading; NULL = none */
};

static void read_sources(struct config *config, const struct sources *from)
{
    if (from->file) {
        (void)snprintf(config->file, sizeof config->file, "%s", from->file);
        if (from->error == 0) {
            config_file_bind(config, from->file, (struct bytes){from->content.bytes, from->content.len});
        } else {
            bool url = strstr(from->file, "://") != NULL; /* of something else, with its password */
            config_fault(config, url ? "-c" : from->file, "cannot read the configuration file: %s",
                         strerror(from->error));
        }
    }
    config_read_environment(config, from->environment);
    for (size_t at = 0; at < from->override_count; at++) {
        const struct config_override *override = &from->overrides[at];
        config_assign(config, override->key, override->value, OPTION_FLAG, override->place);
    }
}

/* Reads everything with one option known; what is wrong with the others shows itself when all are. */
static int find_backend(struct sources *from, struct err *err)
{
    static const struct outbox_option only_backend[] = {
        {"backend", OUTBOX_OPT_STRING, 0, NULL, NULL, 0, 0, "-"}, {0}};
    struct config probe = {0};
    text_init(&probe.faults, FAULTS_MAX_BYTES);
    int result = option_set_init(&probe.core, "", only_backend, 0, err);
    if (result == 0) {
        read_sources(&probe, from);
        const char *value = option_text(&probe.core, "backend");
        from->backend = value ? strdup(value) : NULL;
        result = value && !from->backend ? err_set(err, ERR_INTERNAL, "out of memory") : 0;
    }
    config_finish(&probe);
    return result;
}

static int add_section(struct config *config, const struct outbox_backend *backend, struct err *err)
{
    struct option_set fresh;
    if (backend_options(&fresh, backend, err) != 0) {
        return -1;
    }
    struct option_set *set = (struct option_set *)config_section(config, backend->name);
    if (set) {
        option_set_finish(set); /* a plugin's options stand in for those of a built-in backend of its name */
    } else {
        set = &config->sections[config->section_count++];
    }
    *set = fresh;
    return 0;
}

static int load_plugin(struct config *config, const char *value, struct err *err)
{
    if (loader_find(&config->backend, value, err) != 0) {
        return -1;
    }
    for (size_t at = 0; at < config->core.count; at++) {
        size_t len = strlen(config->backend->name);
        const char *name = config->core.table[at].name;
        if (strncmp(name, config->backend->name, len) == 0 && (name[len] == '.' || name[len] == '\0')) {
            return err_set(err, ERR_CONFIG,
                           "backend %s: the relay has a key '%s' of its own: give it another name", value,
                           config->backend->name);
        }
    }
    return add_section(config, config->backend, err);
}

static int init_sets(struct config *config, struct sources *from, enum config_plugins plugins,
                     struct err *refused, struct err *err)
{
    if (option_set_init(&config->core, "", core_options, 0, err) != 0 || find_backend(from, err) != 0) {
        return -1;
    }
    for (const char *const *name = backend_names(); *name; name++) {
        if (add_section(config, backend_find(*name), err) != 0) {
            return -1;
        }
    }
    const char *value = from->backend;
    config->backend = value ? backend_find(value) : NULL;
    if (value && !config->backend &&
        (plugins == CONFIG_NO_PLUGIN || load_plugin(config, value, refused) != 0)) {
        config->foreign = true; /* nobody can tell which keys it has */
        loader_name(value, config->foreign_name, sizeof config->foreign_name);
        config->backend = NULL;
    }
    return 0;
}

/* The first reading tells no faults: where memory was short only then, it took another backend, or none. */
static int check_backend(const struct config *config, const struct sources *from, struct err *err)
{
    struct bytes named = bytes_of(config_text(config, "backend"));
    bool same = bytes_equal(named, bytes_of(from->backend));
    return same || config->fault_count > 0 ? 0 : err_set(err, ERR_INTERNAL, "out of memory");
}

/* ---- secrets ---- */

/* How many of them are secret. */
static size_t remember_values(const struct outbox_option *row, const struct option_value *value)
{
    size_t found = 0;
    bool one = row->type != OUTBOX_OPT_LIST && row->type != OUTBOX_OPT_MAP;
    const char *const alone[] = {value->text};
    const char *const *items = one ? alone : (const char *const *)value->items;
    size_t count = one ? value->text != NULL : value->count; /* none where memory was short */
    for (size_t at = 0; at < count; at++) {
        if (row->flags & OUTBOX_OPT_SECRET) {
            secrets_add(bytes_of(items[at]));
            found++;
        } else if (row->flags & OUTBOX_OPT_URL) {
            secrets_add_url(items[at]);
            found += strchr(items[at], '@') != NULL;
        }
    }
    return found;
}

/* Of those that stand in the file itself. */
static size_t remember_set(const struct option_set *set)
{
    size_t found = 0;
    for (size_t at = 0; set->values && at < set->count; at++) {
        size_t secret = remember_values(&set->table[at], &set->values[at]);
        found += set->values[at].origin == OPTION_FILE && !set->values[at].apart ? secret : 0;
    }
    return found;
}

/* From now on, whoever repeats them is not heard. True if one stands in the file. */
static bool remember_secrets(const struct config *config)
{
    size_t found = remember_set(&config->core);
    for (size_t at = 0; at < config->section_count; at++) {
        found += remember_set(&config->sections[at]);
    }
    if (config->core.values) {
        pg_remember_secrets(config_text(config, "database"));
    }
    return found > 0;
}

int config_load(struct config *config, const char *file, const char *const *environment,
                const struct config_override *overrides, size_t override_count, enum config_plugins plugins,
                struct err *err)
{
    struct sources from = {.file = file || access(default_file, F_OK) != 0 ? file : default_file,
                           .environment = environment,
                           .overrides = overrides,
                           .override_count = override_count};
    *config = (struct config){0};
    from.error = from.file ? file_content_read(&from.content, from.file, FILE_MAX_BYTES) : 0;
    text_init(&config->faults, FAULTS_MAX_BYTES);
    struct err refused = {0};
    int result = init_sets(config, &from, plugins, &refused, err);
    if (result == 0) {
        read_sources(config, &from);
        result = check_backend(config, &from, err);
    }
    bool told = remember_secrets(config) && from.content.others_read;
    bool changed = from.content.others_write;
    file_content_finish(&from.content);
    free(from.backend);
    if (result != 0) {
        return -1;
    }
    if (told || changed) {
        config_warn(config, config->file, "every user of this host can %s: chmod o= FILE",
                    changed ? "write to this file" : "read this file, which holds a secret");
    }
    if (err_is_set(&refused)) {
        const char *place = place_of(config, "backend");
        config_fault(config, place, "%s%s", strcmp(place, "backend") == 0 ? "" : "backend: ", refused.text);
    }
    check_pair(config, "poll.min", "poll.max");
    check_pair(config, "retry.backoff_min", "retry.backoff_max");
    check_pair(config, "breaker.open_min", "breaker.open_max");
    check_required(config);
    check_filter(config);
    check_database(config);
    warn_of_flags(config);
    warn_of_keys(config);
    if (config->fault_count > 0) {
        return err_set(err, ERR_CONFIG, "the configuration has %u mistake%s", config->fault_count,
                       config->fault_count > 1 ? "s" : "");
    }
    return 0;
}

void config_finish(struct config *config)
{
    option_set_finish(&config->core);
    for (size_t at = 0; at < config->section_count; at++) {
        option_set_finish(&config->sections[at]);
    }
    text_finish(&config->faults);
    *config = (struct config){0};
}

const struct option_value *config_value(const struct config *config, const char *key)
{
    return option_get(&config->core, key);
}

const char *config_text(const struct config *config, const char *key)
{
    return option_text(&config->core, key);
}

int64_t config_number(const struct config *config, const char *key)
{
    return option_number(&config->core, key);
}
