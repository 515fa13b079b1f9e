/*
 * config_keys - the keys there are, and the values they are set to: finding a key, setting it, telling what
 * is wrong with either. config.h says where the values come from.
 */
#ifndef RELAY_CONFIG_KEYS_H
#define RELAY_CONFIG_KEYS_H

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

/* The settings of a backend's section; NULL if there is none of that name. */
const struct option_set *config_section(const struct config *config, const char *name);

/* The set and index that a full key belongs to; false if there is none. */
bool config_find(struct config *config, const char *key, struct option_set **set, int *index);

/* Notes a fault: "place: text". */
void config_fault(struct config *config, const char *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Likewise what is no mistake, and a hazard. */
void config_warn(struct config *config, const char *place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Is the key, or its section, that of a plugin that is installed, and not in use? Those of built-in backends
 * are known anyway. */
bool config_is_of_another_plugin(const struct config *config, const char *key);

/* The section of a plugin that is not loaded: whether its keys are right is not for us to say. */
bool config_is_foreign(const struct config *config, const char *key);

/* Reports a key that does not exist, with the nearest one that does. */
void config_unknown(struct config *config, const char *place, const char *key);

/* Notes a fault, and is true, if the value was set before from the same origin. */
bool config_is_repeated(struct config *config, const struct option_set *set, int index,
                        enum option_origin origin, const char *place, const char *key);

/* ERR_CONFIG where a secret is set to nothing. */
int config_refuse_empty(const struct outbox_option *row, const char *value, struct err *err) MUST_CHECK;

/* Sets a scalar by its full key, "_file" twins included; faults are noted. */
void config_assign(struct config *config, const char *key, const char *value, enum option_origin origin,
                   const char *place);

/* Sets what variables such as OUTBOX_BATCH__MAX_MESSAGES say; environment is like environ. */
void config_read_environment(struct config *config, const char *const *environment);

#endif
