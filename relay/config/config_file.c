#include "config/config_file.h"

#include <stdio.h>
#include <string.h>

#include "config/yaml.h"

enum { FAULTS_AT_MOST = 100 };

/* One list or mapping on its way into an option. */
struct binding {
    struct config *config;
    const struct yaml_entry *entry;
    struct option_set *set;
    int index;
};

static bool append(void *context, const char *name, const char *text)
{
    struct binding *binding = context;
    const struct yaml_entry *entry = binding->entry;
    bool map = entry->shape == YAML_ENTRY_MAP;
    struct err err = {0};
    bool plain = text && (name || !map);
    if (!plain || config_refuse_empty(&binding->set->table[binding->index], text, &err) != 0 ||
        option_append(binding->set, binding->index, name, text, &err) != 0) {
        config_fault(binding->config, entry->place, "%s: %s", entry->path,
                     plain ? err.text
                     : map ? "an entry is not NAME: plain text"
                           : "an entry is not a plain text");
        return false;
    }
    return true;
}

static void bind_items(struct binding *binding)
{
    const struct yaml_entry *entry = binding->entry;
    struct err err = {0};
    if (option_begin(binding->set, binding->index, OPTION_FILE, entry->place, &err) != 0) {
        config_fault(binding->config, entry->place, "%s: %s", entry->path, err.text);
        return;
    }
    yaml_each_item(entry, append, binding);
}

static void bind_option(struct config *config, struct option_set *set, int index,
                        const struct yaml_entry *entry)
{
    enum outbox_option_type type = set->table[index].type;
    struct binding binding = {config, entry, set, index};
    if (entry->text) {
        config_assign(config, entry->path, entry->text, OPTION_FILE, entry->place);
    } else if (config_is_repeated(config, set, index, OPTION_FILE, entry->place, entry->path)) {
        (void)0; /* told */
    } else if ((type == OUTBOX_OPT_LIST && entry->shape == YAML_ENTRY_LIST) ||
               (type == OUTBOX_OPT_MAP && entry->shape == YAML_ENTRY_MAP)) {
        bind_items(&binding);
    } else {
        config_fault(config, entry->place, "%s: %s is expected here", entry->path,
                     type == OUTBOX_OPT_LIST  ? "a list of texts"
                     : type == OUTBOX_OPT_MAP ? "a mapping of names to texts"
                                              : "a single value");
    }
}

static bool is_prefix(const struct option_set *set, const char *path)
{
    size_t len = strlen(path);
    for (size_t at = 0; at < set->count; at++) {
        if (strncmp(set->table[at].name, path, len) == 0 && set->table[at].name[len] == '.') {
            return true;
        }
    }
    return false;
}

static bool is_section(const struct config *config, const char *path)
{
    size_t len = strcspn(path, ".");
    char section[YAML_PATH_BYTES];
    (void)snprintf(section, sizeof section, "%.*s", (int)len, path);
    const struct option_set *set = config_section(config, section);
    if (!set) {
        return is_prefix(&config->core, path);
    }
    return path[len] == '\0' || is_prefix(set, path + len + 1);
}

/* A section whose keys are all commented out, and that of a plugin that is not loaded. */
static bool is_to_be_skipped(const struct config *config, const struct yaml_entry *entry)
{
    bool empty = entry->text && entry->text[0] == '\0';
    return (empty && is_section(config, entry->path)) ||
           (config_is_foreign(config, entry->path) && (empty || entry->shape == YAML_ENTRY_MAP)) ||
           (entry->shape == YAML_ENTRY_MAP && !is_section(config, entry->path) &&
            config_is_of_another_plugin(config, entry->path));
}

static bool take_entry(void *context, const struct yaml_entry *entry)
{
    struct config *config = context;
    struct option_set *set = NULL;
    int index = -1;
    if (config->fault_count >= FAULTS_AT_MOST) {
        return false; /* who reads so many wants another file; and each is compared with all keys there are */
    }
    if (is_to_be_skipped(config, entry)) {
        return false;
    }
    if (config_find(config, entry->path, &set, &index)) {
        bind_option(config, set, index, entry);
    } else if (is_section(config, entry->path)) {
        if (entry->shape == YAML_ENTRY_MAP) {
            return true;
        }
        config_fault(config, entry->key_place, "'%s' is a section: its keys follow indented", entry->path);
    } else if (entry->text) {
        config_assign(config, entry->path, entry->text, OPTION_FILE,
                      entry->key_place); /* a _file twin, or unknown */
    } else {
        config_unknown(config, entry->key_place, entry->path);
    }
    return false;
}

static void take_fault(void *context, const char *place, const char *text)
{
    struct config *config = context;
    if (config->fault_count < FAULTS_AT_MOST) {
        config_fault(config, place, "%s", text);
    }
}

void config_file_bind(struct config *config, const char *path, struct bytes content)
{
    const struct yaml_reader reader = {config, take_entry, take_fault};
    yaml_read(path, content, &reader);
}
