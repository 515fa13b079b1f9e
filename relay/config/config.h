/*
 * config - the effective configuration: flag > environment > file > default, every mistake reported at once
 * with its place.
 *
 * Keys are flat and dotted ("batch.max_messages", "amqp.url"); a backend's options live in a section that
 * bears its name. Environment: OUTBOX_ + key in upper case, '.' as '__'. Options that hold secrets or URLs
 * have a NAME_file twin.
 */
#ifndef RELAY_CONFIG_H
#define RELAY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/option.h"
#include "outbox_backend.h"

enum { CONFIG_MAX_SECTIONS = 16 }; /* more than there are built-in backends */

struct config {
    struct option_set core;
    struct option_set sections[CONFIG_MAX_SECTIONS];
    size_t section_count;
    const struct outbox_backend *backend; /* NULL = not set, or a plugin that was not loaded */
    bool foreign;                         /* the keys of a plugin that is not loaded pass unseen */
    char foreign_name[32];                /* its section, where its file tells; "" = any that is not ours */
    char file[256];                       /* the file that was read; "" = none */
    struct text faults;                   /* one per line, with its place */
    unsigned fault_count;
};

/* One -o KEY=VALUE or its long form; place is how the user wrote it. */
struct config_override {
    const char *key;
    const char *value;
    const char *place;
};

/* Running a plugin's code is for those who publish; others need not even have it. */
enum config_plugins { CONFIG_NO_PLUGIN = 0, CONFIG_LOADS_PLUGIN };

/*
 * Reads everything. file NULL = /etc/outbox-relay.yaml where it exists. environment is like environ. -1: *err
 * says how many faults there are, config->faults lists them; config must be finished either way.
 */
int config_load(struct config *config, const char *file, const char *const *environment,
                const struct config_override *overrides, size_t override_count, enum config_plugins plugins,
                struct err *err) MUST_CHECK;
void config_finish(struct config *config);

const char *config_text(const struct config *config, const char *key); /* core options; NULL = not set */
int64_t config_number(const struct config *config, const char *key);
const struct option_value *config_value(const struct config *config, const char *key);

/* The settings of a backend's section. */
const struct option_set *config_section(const struct config *config, const char *name);

/* The set and index that a full key belongs to; false if there is none. */
bool config_find(struct config *config, const char *key, struct option_set **set, int *index);

/* Notes a fault: "place: text". */
void config_fault(struct config *config, const char *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The section of a plugin that is not loaded: whether its keys are right is not for us to say. */
bool config_is_foreign(const struct config *config, const char *key);

/* Reports a key that does not exist, with the nearest one that does. */
void config_unknown(struct config *config, const char *place, const char *key);

/* Notes a fault, and is true, if the value was set before from the same origin. */
bool config_is_repeated(struct config *config, const struct option_set *set, int index,
                        enum option_origin origin, const char *place, const char *key);

/* Sets a scalar by its full key, "_file" twins included; faults are noted. */
void config_assign(struct config *config, const char *key, const char *value, enum option_origin origin,
                   const char *place);

/*
 * Binds a YAML text to the config's options; `path` names it in faults, which are noted. (yaml.c)
 */
void config_read_yaml(struct config *config, const char *path, struct bytes content);

#endif
