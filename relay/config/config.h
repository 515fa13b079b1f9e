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

#include "config/config_keys.h"

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
 * says how many faults there are, config->faults lists them; config must be finished either way. 0: what
 * stands in config->faults are warnings.
 */
int config_load(struct config *config, const char *file, const char *const *environment,
                const struct config_override *overrides, size_t override_count, enum config_plugins plugins,
                struct err *err) MUST_CHECK;
void config_finish(struct config *config);

const char *config_text(const struct config *config, const char *key); /* core options; NULL = not set */
int64_t config_number(const struct config *config, const char *key);
const struct option_value *config_value(const struct config *config, const char *key);

#endif
