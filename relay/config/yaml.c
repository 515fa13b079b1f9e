#include "config/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 8, MAX_KEYS = 1000, FAULT_BYTES = 512 };

struct walk {
    const struct yaml_reader *reader;
    yaml_document_t *document;
    const char *file;
};

static void put_place(char place[YAML_PLACE_BYTES], const char *file, yaml_mark_t mark)
{
    (void)snprintf(place, YAML_PLACE_BYTES, "%s:%zu:%zu", file, mark.line + 1, mark.column + 1);
}

__attribute__((format(printf, 3, 4))) static void tell(const struct yaml_reader *reader, const char *place,
                                                       const char *format, ...)
{
    char text[FAULT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    reader->fault(reader->context, place, text);
}

/* A text that holds no NUL byte; else NULL. */
static const char *plain_text(const yaml_node_t *node)
{
    const char *text = node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
    return text && strlen(text) == node->data.scalar.length ? text : NULL;
}

static enum yaml_entry_shape shape_of(const yaml_node_t *node)
{
    switch (node->type) {
    case YAML_SCALAR_NODE:
        return plain_text(node) ? YAML_ENTRY_TEXT : YAML_ENTRY_OTHER;
    case YAML_SEQUENCE_NODE:
        return YAML_ENTRY_LIST;
    case YAML_MAPPING_NODE:
        return YAML_ENTRY_MAP;
    default:
        return YAML_ENTRY_OTHER;
    }
}

void yaml_each_item(const struct yaml_entry *entry,
                    bool (*each)(void *context, const char *name, const char *text), void *context)
{
    const yaml_node_t *node = entry->value;
    yaml_document_t *document = entry->document;
    if (node->type == YAML_SEQUENCE_NODE) {
        for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top;
             item++) {
            if (!each(context, NULL, plain_text(yaml_document_get_node(document, *item)))) {
                return;
            }
        }
    } else if (node->type == YAML_MAPPING_NODE) {
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
             pair++) {
            if (!each(context, plain_text(yaml_document_get_node(document, pair->key)),
                      plain_text(yaml_document_get_node(document, pair->value)))) {
                return;
            }
        }
    }
}

static bool is_repeated(const struct walk *walk, const yaml_node_t *node, const yaml_node_pair_t *pair)
{
    const char *name = plain_text(yaml_document_get_node(walk->document, pair->key));
    for (yaml_node_pair_t *before = node->data.mapping.pairs.start; before < pair; before++) {
        const char *other = plain_text(yaml_document_get_node(walk->document, before->key));
        if (other && name && strcmp(other, name) == 0) {
            return true;
        }
    }
    return false;
}

static void walk_mapping(struct walk *walk, const yaml_node_t *node, const char *prefix, int depth)
{
    if (node->data.mapping.pairs.top - node->data.mapping.pairs.start > MAX_KEYS) {
        char place[YAML_PLACE_BYTES];
        put_place(place, walk->file, node->start_mark);
        tell(walk->reader, place, "more than %d keys in one mapping", MAX_KEYS);
        return;
    }
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        yaml_node_t *key = yaml_document_get_node(walk->document, pair->key);
        yaml_node_t *value = yaml_document_get_node(walk->document, pair->value);
        char key_place[YAML_PLACE_BYTES];
        char place[YAML_PLACE_BYTES];
        char path[YAML_PATH_BYTES];
        put_place(key_place, walk->file, key->start_mark);
        put_place(place, walk->file, value->start_mark);
        const char *name = plain_text(key);
        if (!name ||
            snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", name) >= (int)sizeof path) {
            tell(walk->reader, key_place, "a key must be a plain text of at most %d bytes", YAML_PATH_BYTES);
            continue;
        }
        if (is_repeated(walk, node, pair)) {
            tell(walk->reader, key_place, "key '%s' stands there twice", path);
            continue;
        }
        const struct yaml_entry entry = {path,  key_place,     place, shape_of(value), plain_text(value),
                                         value, walk->document};
        bool wanted = walk->reader->entry(walk->reader->context, &entry);
        if (wanted && depth == MAX_DEPTH) {
            tell(walk->reader, key_place, "'%s' lies deeper than %d keys", path, MAX_DEPTH);
        } else if (wanted && value->type == YAML_MAPPING_NODE) {
            walk_mapping(walk, value, path, depth + 1);
        }
    }
}

static void tell_of_syntax(const struct yaml_reader *reader, const char *file, const yaml_parser_t *parser)
{
    char place[YAML_PLACE_BYTES];
    put_place(place, file, parser->problem_mark);
    tell(reader, place, "not valid YAML: %s%s%s%s", parser->problem ? parser->problem : "unreadable",
         parser->context ? " (" : "", parser->context ? parser->context : "", parser->context ? ")" : "");
}

/* What stands behind a second "---" would be ignored silently. */
static void refuse_second_document(const struct yaml_reader *reader, const char *file, yaml_parser_t *parser)
{
    yaml_document_t document;
    if (!yaml_parser_load(parser, &document)) {
        tell_of_syntax(reader, file, parser);
        return;
    }
    yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root) {
        char place[YAML_PLACE_BYTES];
        put_place(place, file, root->start_mark);
        tell(reader, place, "a second YAML document: put everything into one");
    }
    yaml_document_delete(&document);
}

void yaml_read(const char *file, struct bytes content, const struct yaml_reader *reader)
{
    yaml_parser_t parser;
    yaml_document_t document;
    if (!yaml_parser_initialize(&parser)) {
        tell(reader, file, "out of memory");
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)content.ptr, content.len);
    if (!yaml_parser_load(&parser, &document)) {
        tell_of_syntax(reader, file, &parser);
    } else {
        struct walk walk = {reader, &document, file};
        const yaml_node_t *root = yaml_document_get_root_node(&document);
        if (root && root->type == YAML_MAPPING_NODE) {
            walk_mapping(&walk, root, "", 0);
        } else if (root && !(plain_text(root) && plain_text(root)[0] == '\0')) {
            tell(reader, file, "the file must be a mapping of keys to values");
        }
        yaml_document_delete(&document);
        refuse_second_document(reader, file, &parser);
    }
    yaml_parser_delete(&parser);
}

const char *yaml_library_version(void)
{
    return yaml_get_version_string();
}
