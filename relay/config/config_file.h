/* config_file - binds a configuration file to the options that there are, strictly. */
#ifndef RELAY_CONFIG_FILE_H
#define RELAY_CONFIG_FILE_H

#include "config/config_keys.h"

/* `path` names the file in faults, which are noted. */
void config_file_bind(struct config *config, const char *path, struct bytes content);

#endif
