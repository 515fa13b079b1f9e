/* yaml - reads the configuration file: libyaml parses, this binds nodes to keys, strictly. */
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#include "config/config.h"

enum { MAX_DEPTH = 8, PATH_BYTES = 128, PLACE_BYTES = 160 };

struct reader {
    struct config *config;
    yaml_document_t *document;
    const char *file;
};

static void place_of(const struct reader *reader, const yaml_node_t *node, char place[PLACE_BYTES])
{
    (void)snprintf(place, PLACE_BYTES, "%s:%zu:%zu", reader->file, node->start_mark.line + 1,
                   node->start_mark.column + 1);
}

static const char *scalar(const yaml_node_t *node)
{
    const char *text = node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
    return text && strlen(text) == node->data.scalar.length ? text : NULL;
}

static void bind_list(struct reader *reader, struct option_set *set, int index, const char *path,
                      yaml_node_t *node, const char *place)
{
    struct err err = {0};
    if (option_begin(set, index, OPTION_FILE, place, &err) != 0) {
        config_fault(reader->config, place, "%s: %s", path, err.text);
        return;
    }
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
         item++) {
        yaml_node_t *entry = yaml_document_get_node(reader->document, *item);
        const char *text = scalar(entry);
        if (!text || option_append(set, index, NULL, text, &err) != 0) {
            config_fault(reader->config, place, "%s: %s", path,
                         text ? err.text : "an entry is not a plain text");
            return;
        }
    }
}

static void bind_map(struct reader *reader, struct option_set *set, int index, const char *path,
                     yaml_node_t *node, const char *place)
{
    struct err err = {0};
    if (option_begin(set, index, OPTION_FILE, place, &err) != 0) {
        config_fault(reader->config, place, "%s: %s", path, err.text);
        return;
    }
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        const char *name = scalar(yaml_document_get_node(reader->document, pair->key));
        const char *text = scalar(yaml_document_get_node(reader->document, pair->value));
        if (!name || !text || option_append(set, index, name, text, &err) != 0) {
            config_fault(reader->config, place, "%s: %s", path,
                         name && text ? err.text : "an entry is not NAME: plain text");
            return;
        }
    }
}

static void bind(struct reader *reader, struct option_set *set, int index, const char *path,
                 yaml_node_t *node)
{
    char place[PLACE_BYTES];
    place_of(reader, node, place);
    enum outbox_option_type type = set->table[index].type;
    const char *text = scalar(node);
    if (text) {
        config_assign(reader->config, path, text, OPTION_FILE, place);
    } else if (config_is_repeated(reader->config, set, index, OPTION_FILE, place, path)) {
        (void)0; /* told */
    } else if (type == OUTBOX_OPT_LIST && node->type == YAML_SEQUENCE_NODE) {
        bind_list(reader, set, index, path, node, place);
    } else if (type == OUTBOX_OPT_MAP && node->type == YAML_MAPPING_NODE) {
        bind_map(reader, set, index, path, node, place);
    } else {
        config_fault(reader->config, place, "%s: %s is expected here", path,
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

static bool is_branch(const struct config *config, const char *path)
{
    size_t len = strcspn(path, ".");
    char section[PATH_BYTES];
    (void)snprintf(section, sizeof section, "%.*s", (int)len, path);
    const struct option_set *set = config_section(config, section);
    if (!set) {
        return is_prefix(&config->core, path);
    }
    return path[len] == '\0' || is_prefix(set, path + len + 1);
}

static bool is_repeated(const struct reader *reader, const yaml_node_t *node, const yaml_node_pair_t *pair)
{
    const char *name = scalar(yaml_document_get_node(reader->document, pair->key));
    for (yaml_node_pair_t *before = node->data.mapping.pairs.start; before < pair; before++) {
        const char *other = scalar(yaml_document_get_node(reader->document, before->key));
        if (other && name && strcmp(other, name) == 0) {
            return true;
        }
    }
    return false;
}

/* A section whose keys are all commented out, and that of a plugin that is not loaded. */
static bool is_to_be_skipped(const struct config *config, const char *path, const yaml_node_t *value)
{
    bool empty = scalar(value) && scalar(value)[0] == '\0';
    return (empty && is_branch(config, path)) ||
           (config_is_foreign(config, path) && (empty || value->type == YAML_MAPPING_NODE));
}

static void walk(struct reader *reader, yaml_node_t *node, const char *prefix, int depth)
{
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        char place[PLACE_BYTES];
        char path[PATH_BYTES];
        place_of(reader, key, place);
        const char *name = scalar(key);
        if (!name ||
            snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", name) >= (int)sizeof path) {
            config_fault(reader->config, place, "a key must be a plain text of at most %d bytes", PATH_BYTES);
            continue;
        }
        if (is_repeated(reader, node, pair)) {
            config_fault(reader->config, place, "key '%s' stands there twice", path);
            continue;
        }
        struct option_set *set = NULL;
        int index = -1;
        if (is_to_be_skipped(reader->config, path, value)) {
            continue;
        }
        if (config_find(reader->config, path, &set, &index)) {
            bind(reader, set, index, path, value);
        } else if (value->type == YAML_MAPPING_NODE && is_branch(reader->config, path) && depth < MAX_DEPTH) {
            walk(reader, value, path, depth + 1);
        } else if (is_branch(reader->config, path)) {
            config_fault(reader->config, place, "'%s' is a section: its keys follow indented", path);
        } else if (scalar(value)) {
            config_assign(reader->config, path, scalar(value), OPTION_FILE,
                          place); /* a _file twin, or unknown */
        } else {
            config_unknown(reader->config, place, path);
        }
    }
}

static void report_syntax(struct config *config, const char *path, const yaml_parser_t *parser)
{
    char place[PLACE_BYTES];
    (void)snprintf(place, sizeof place, "%s:%zu:%zu", path, parser->problem_mark.line + 1,
                   parser->problem_mark.column + 1);
    config_fault(config, place, "not valid YAML: %s%s%s%s", parser->problem ? parser->problem : "unreadable",
                 parser->context ? " (" : "", parser->context ? parser->context : "",
                 parser->context ? ")" : "");
}

/* What stands behind a second "---" would be ignored silently. */
static void refuse_second_document(struct config *config, const char *path, yaml_parser_t *parser)
{
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) {
        report_syntax(config, path, parser);
        return;
    }
    yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root) {
        char place[PLACE_BYTES];
        (void)snprintf(place, sizeof place, "%s:%zu:%zu", path, root->start_mark.line + 1,
                       root->start_mark.column + 1);
        config_fault(config, place, "a second YAML document: put everything into one");
    }
    yaml_document_delete(&document);
}

void config_read_yaml(struct config *config, const char *path, struct bytes content)
{
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser)) {
        config_fault(config, path, "out of memory");
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)content.ptr, content.len);
    if (!yaml_parser_load(&parser, &document)) {
        report_syntax(config, path, &parser);
    } else {
        struct reader reader = {config, &document, path};
        yaml_node_t *root = yaml_document_get_root_node(&document);
        if (root && root->type == YAML_MAPPING_NODE) {
            walk(&reader, root, "", 0);
        } else if (root && !(scalar(root) && scalar(root)[0] == '\0')) {
            config_fault(config, path, "the file must be a mapping of keys to values");
        }
        yaml_document_delete(&document);
        refuse_second_document(config, path, &parser);
    }
    yaml_parser_delete(&parser);
}
