/* config_print - the configuration for people and editors: effective values, a sample file, a JSON Schema. */
#ifndef RELAY_CONFIG_PRINT_H
#define RELAY_CONFIG_PRINT_H

#include "base/bytes.h"
#include "config/config.h"

/* "key: value  # origin place", a line per option, secrets redacted. */
void config_print_values(const struct config *config, struct text *out);

/* A commented YAML file with every default, of the core and of the backend in use (of all, if none is set).
 */
void config_print_sample(const struct config *config, struct text *out);

/* JSON Schema 2020-12 of the file, as one text. */
void config_print_schema(const struct config *config, struct text *out);

/* The options of one table for people: name, type, default, bounds and help. */
void config_print_options(const struct outbox_option *table, const char *section, struct text *out);

#endif
