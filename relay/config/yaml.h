/*
 * yaml - reads a YAML file as a tree of keys: libyaml parses it, and each key is handed to a callback with
 * its full path and its place. Knows nothing of options; the only file with libyaml.
 */
#ifndef RELAY_YAML_H
#define RELAY_YAML_H

#include <stdbool.h>

#include "base/bytes.h"

enum { YAML_PATH_BYTES = 128, YAML_PLACE_BYTES = 160 };

enum yaml_entry_shape { YAML_ENTRY_TEXT, YAML_ENTRY_LIST, YAML_ENTRY_MAP, YAML_ENTRY_OTHER };

/* A key and its value, while the callback runs. */
struct yaml_entry {
    const char *path;      /* the keys from the root on, dotted */
    const char *key_place; /* file:line:column */
    const char *place;     /* of the value */
    enum yaml_entry_shape shape;
    const char *text;  /* of YAML_ENTRY_TEXT, else NULL; a text with a NUL byte is YAML_ENTRY_OTHER */
    const void *value; /* for yaml_each_item() */
    void *document;
};

struct yaml_reader {
    void *context;

    /* True asks for the keys of an entry that is a YAML_ENTRY_MAP, each as an entry of its own. */
    bool (*entry)(void *context, const struct yaml_entry *entry);

    /* What is no YAML, and what we do not take: keys that are no plain texts, or stand there twice; a second
     * document. */
    void (*fault)(void *context, const char *place, const char *text);
};

/* Reads it all; `file` is its name in places. */
void yaml_read(const char *file, struct bytes content, const struct yaml_reader *reader);

/*
 * Hands over the items of a list or a mapping until `each` says false. name: NULL in a list, and where a key
 * is no plain text; text: NULL where the item is none.
 */
void yaml_each_item(const struct yaml_entry *entry,
                    bool (*each)(void *context, const char *name, const char *text), void *context);

/* Of the libyaml that runs, such as "0.2.5". */
const char *yaml_library_version(void);

#endif
