#include "config/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin/backend.h"
#include "plugin/loader.h"

enum {
    FILE_MAX_BYTES = 4 << 20,
    FAULTS_MAX_BYTES = 64 << 10,
    SECRET_MAX_BYTES = 64 << 10,
    KEY_MAX_BYTES = 128
};

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
    WAIT("poll.min", "5ms", 1, 60000, "first wait when the outbox is empty"),
    WAIT("poll.max", "1s", 1, 60000, "longest wait when the outbox is empty"),
    WAIT("publish_timeout", "10s", 100, 600000, "deadline of one batch, and of connecting to the broker"),
    WAIT("shutdown_timeout", "20s", 0, 600000, "how long a stop waits for the batches in flight"),
    WAIT("drain.unavailable_after", "30s", 0, 86400000,
         "drain gives up when database or broker is away this long"),
    {"retry.max_attempts", OUTBOX_OPT_INT, 0, "10", NULL, 0, 1000000,
     "then a dead letter; 0 = never give up"},
    WAIT("retry.backoff_min", "1s", 1, 86400000, "wait after the first counted attempt"),
    WAIT("retry.backoff_max", "10m", 1, 86400000, "longest wait between attempts"),
    WAIT("retry.give_up_after", "0", 0, 0, "age at which a refused message becomes a dead letter; 0 = never"),
    {"breaker.failures", OUTBOX_OPT_INT, 0, "5", NULL, 1, 1000, "failures in a row that open the breaker"},
    WAIT("breaker.open_min", "1s", 1, 3600000, "first pause of the breaker"),
    WAIT("breaker.open_max", "60s", 1, 3600000, "longest pause of the breaker"),
    {"log.level", OUTBOX_OPT_CHOICE, 0, "info", "error|warning|info|debug", 0, 0,
     "least important event that is logged"},
    {"log.format", OUTBOX_OPT_CHOICE, 0, "text", "text|logfmt|json", 0, 0, "shape of log lines"},
    {0},
};

void config_fault(struct config *config, const char *place, const char *format, ...)
{
    char message[1024];
    char clean[1024]; /* keys and values are quoted, and in YAML they may hold line breaks and escapes */
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    bytes_copy_printable(clean, sizeof clean, bytes_of(message));
    text_addf(&config->faults, "%s: %s\n", place, clean);
    config->fault_count++;
}

/* ---- finding keys ---- */

bool config_find(struct config *config, const char *key, struct option_set **set, int *index)
{
    *set = &config->core;
    *index = option_find(&config->core, key);
    for (size_t at = 0; at < config->section_count && *index < 0; at++) {
        size_t len = strlen(config->sections[at].section);
        if (strncmp(key, config->sections[at].section, len) == 0 && key[len] == '.') {
            *set = &config->sections[at];
            *index = option_find(*set, key + len + 1);
        }
    }
    return *index >= 0;
}

/* Compares with every full key and every part of one in front of a dot. */
static void suggest(const struct option_set *set, const char *key, char *best, size_t *best_distance)
{
    for (size_t at = 0; at < set->count; at++) {
        char full[KEY_MAX_BYTES];
        (void)snprintf(full, sizeof full, "%s%s%s", set->section, set->section[0] ? "." : "",
                       set->table[at].name);
        for (;;) {
            size_t far = option_distance(key, full);
            if (far < *best_distance) {
                *best_distance = far;
                memcpy(best, full, sizeof full);
            }
            char *dot = strrchr(full, '.');
            if (!dot) {
                break;
            }
            *dot = '\0';
        }
    }
}

static bool nearest(const struct config *config, const char *key, char best[KEY_MAX_BYTES])
{
    size_t best_distance = strlen(key) / 3 + 1;
    size_t limit = best_distance;
    suggest(&config->core, key, best, &best_distance);
    for (size_t at = 0; at < config->section_count; at++) {
        suggest(&config->sections[at], key, best, &best_distance);
    }
    return best_distance < limit;
}

bool config_is_foreign(const struct config *config, const char *key)
{
    size_t len = strcspn(key, ".");
    if (!config->foreign || (config->foreign_name[0] && (strlen(config->foreign_name) != len ||
                                                         strncmp(config->foreign_name, key, len) != 0))) {
        return false;
    }
    for (size_t at = 0; at < config->core.count; at++) {
        const char *name = config->core.table[at].name;
        if (strncmp(name, key, len) == 0 && (name[len] == '.' || name[len] == '\0')) {
            return false;
        }
    }
    return true;
}

void config_unknown(struct config *config, const char *place, const char *key)
{
    if (strchr(key, '.') && config_is_foreign(config, key)) {
        return;
    }
    char best[KEY_MAX_BYTES];
    if (nearest(config, key, best)) {
        config_fault(config, place, "unknown key '%s'; did you mean '%s'?", key, best);
    } else {
        config_fault(config, place, "unknown key '%s'; 'outbox-relay config show' lists all keys", key);
    }
}

/* ---- setting values ---- */

/* Reads a secret's file, without the line break at its end. NULL and a fault if that fails. */
static char *read_secret(struct config *config, const char *path, const char *place)
{
    FILE *file = fopen(path, "re");
    char *content = file ? calloc(1, SECRET_MAX_BYTES + 1) : NULL;
    if (!content) {
        config_fault(config, place, "cannot read %s: %s", path, strerror(errno));
        if (file) {
            (void)fclose(file);
        }
        return NULL;
    }
    size_t len = fread(content, 1, SECRET_MAX_BYTES + 1, file);
    bool failed = ferror(file) != 0;
    (void)fclose(file);
    if (failed || len > SECRET_MAX_BYTES || memchr(content, '\0', len)) {
        config_fault(config, place, "%s is no text of at most %d bytes", path, SECRET_MAX_BYTES);
        free(content);
        return NULL;
    }
    while (len > 0 && (content[len - 1] == '\n' || content[len - 1] == '\r')) {
        content[--len] = '\0';
    }
    return content;
}

bool config_is_repeated(struct config *config, const struct option_set *set, int index,
                        enum option_origin origin, const char *place, const char *key)
{
    const struct option_value *value = &set->values[index];
    /* The command line is read from left to right, and the last one wins, as everywhere. */
    if (origin == OPTION_FLAG || !value->is_set || value->origin != origin) {
        return false;
    }
    config_fault(config, place, "key '%s' stands there twice (first at %s)", key, value->place);
    return true;
}

static void assign_from_file(struct config *config, struct option_set *set, int index, const char *path,
                             enum option_origin origin, const char *place)
{
    struct err err = {0};
    char *content = read_secret(config, path, place);
    if (content && option_assign(set, index, content, origin, place, &err) != 0) {
        config_fault(config, place, "the content of %s is not valid here",
                     path); /* the text itself may be secret */
    }
    free(content);
}

void config_assign(struct config *config, const char *key, const char *value, enum option_origin origin,
                   const char *place)
{
    struct option_set *set = NULL;
    int index = -1;
    struct err err = {0};
    if (config_find(config, key, &set, &index)) {
        if (!config_is_repeated(config, set, index, origin, place, key) &&
            option_assign(set, index, value, origin, place, &err) != 0) {
            config_fault(config, place, "%s: %s", key, err.text);
        }
        return;
    }
    char base[KEY_MAX_BYTES];
    size_t len = strlen(key);
    if (len > 5 && len < sizeof base && strcmp(key + len - 5, "_file") == 0) {
        memcpy(base, key, len - 5);
        base[len - 5] = '\0';
        if (config_find(config, base, &set, &index) &&
            (set->table[index].flags & (OUTBOX_OPT_SECRET | OUTBOX_OPT_URL))) {
            if (!config_is_repeated(config, set, index, origin, place, base)) {
                assign_from_file(config, set, index, value, origin, place);
            }
            return;
        }
    }
    config_unknown(config, place, key);
}

/* OUTBOX_BATCH__MAX_MESSAGES -> batch.max_messages. */
static void read_environment(struct config *config, const char *const *environment)
{
    static const char prefix[] = "OUTBOX_";
    for (; environment && *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        size_t name_len = equals ? (size_t)(equals - *environment) : 0;
        char key[KEY_MAX_BYTES];
        char name[KEY_MAX_BYTES];
        size_t used = 0;
        if (strncmp(*environment, prefix, sizeof prefix - 1) != 0 || name_len >= sizeof name) {
            continue;
        }
        memcpy(name, *environment, name_len);
        name[name_len] = '\0';
        for (size_t at = sizeof prefix - 1; at < name_len; at++) {
            bool dot = name[at] == '_' && name[at + 1] == '_';
            key[used++] = dot ? '.' : (char)tolower((unsigned char)name[at]);
            at += dot;
        }
        key[used] = '\0';
        struct option_set *set = NULL;
        int index = -1;
        char best[KEY_MAX_BYTES];
        size_t file_twin = used > 5 && strcmp(key + used - 5, "_file") == 0 ? 5 : 0;
        /* Other programs' variables begin like ours, too (Kubernetes makes OUTBOX_RELAY_PORT): only near
         * misses are faults. */
        if (config_find(config, key, &set, &index) || file_twin || nearest(config, key, best)) {
            config_assign(config, key, equals + 1, OPTION_ENVIRONMENT, name);
        }
    }
}

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

/* ---- the backend comes first: it says which options there are ---- */

struct sources {
    const char *file; /* NULL = none */
    char *content;    /* of the file, read once: it may be a pipe */
    size_t content_bytes;
    int error; /* errno, where there is no content */
    const char *const *environment;
    const struct config_override *overrides;
    size_t override_count;
    char *backend; /* its name, by a first reading; NULL = none */
};

static void read_file(struct sources *from)
{
    FILE *file = from->file ? fopen(from->file, "re") : NULL;
    char *content = file ? malloc(FILE_MAX_BYTES) : NULL;
    from->error = errno;
    if (content) {
        errno = 0;
        from->content_bytes = fread(content, 1, FILE_MAX_BYTES, file);
        from->error = ferror(file) ? errno : from->content_bytes == FILE_MAX_BYTES ? EFBIG : 0;
        from->content = from->error == 0 ? content : NULL;
    }
    if (content && !from->content) {
        free(content);
    }
    if (file) {
        (void)fclose(file);
    }
}

static void read_sources(struct config *config, const struct sources *from)
{
    if (from->file) {
        (void)snprintf(config->file, sizeof config->file, "%s", from->file);
        if (from->content) {
            config_read_yaml(config, from->file, (struct bytes){from->content, from->content_bytes});
        } else {
            config_fault(config, from->file, "cannot read the configuration file: %s", strerror(from->error));
        }
    }
    read_environment(config, from->environment);
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
    int result = option_set_init(&probe.core, "", only_backend, err);
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
    if (option_set_init(&fresh, backend->name, backend->options, err) != 0) {
        err->class = ERR_CONFIG;
        return err_prefix(err, "%s: the default of an option", backend->name);
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
    if (option_set_init(&config->core, "", core_options, err) != 0 || find_backend(from, err) != 0) {
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

int config_load(struct config *config, const char *file, const char *const *environment,
                const struct config_override *overrides, size_t override_count, enum config_plugins plugins,
                struct err *err)
{
    struct sources from = {.file = file || access(default_file, F_OK) != 0 ? file : default_file,
                           .environment = environment,
                           .overrides = overrides,
                           .override_count = override_count};
    *config = (struct config){0};
    read_file(&from);
    text_init(&config->faults, FAULTS_MAX_BYTES);
    struct err refused = {0};
    int result = init_sets(config, &from, plugins, &refused, err);
    if (result == 0) {
        read_sources(config, &from);
        result = check_backend(config, &from, err);
    }
    free(from.content);
    free(from.backend);
    if (result != 0) {
        return -1;
    }
    if (err_is_set(&refused)) {
        const char *place = place_of(config, "backend");
        config_fault(config, place, "%s%s", strcmp(place, "backend") == 0 ? "" : "backend: ", refused.text);
    }
    check_pair(config, "poll.min", "poll.max");
    check_pair(config, "retry.backoff_min", "retry.backoff_max");
    check_pair(config, "breaker.open_min", "breaker.open_max");
    check_required(config);
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

const struct option_set *config_section(const struct config *config, const char *name)
{
    for (size_t at = 0; at < config->section_count; at++) {
        if (strcmp(config->sections[at].section, name) == 0) {
            return &config->sections[at];
        }
    }
    return NULL;
}
