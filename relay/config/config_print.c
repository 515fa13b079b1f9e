#include "config/config_print.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/printable.h"
#include "postgres/pg_conninfo.h"

enum { NAME_MAX_BYTES = 128, SHOWN_MAX_BYTES = 1 << 20 };

static bool is_shown(const struct config *config, const struct option_set *set)
{
    return !config->backend || strcmp(set->section, config->backend->name) == 0;
}

/* ---- values ---- */

/* What a YAML reader takes for what it is: a number, a duration, a plain word. All else is quoted. */
static bool is_plain(const struct outbox_option *row)
{
    return row->type == OUTBOX_OPT_INT || row->type == OUTBOX_OPT_BOOL ||
           row->type == OUTBOX_OPT_DURATION_MS || row->type == OUTBOX_OPT_BYTES;
}

/* A word, a path or an address that no reader of YAML takes for anything else. */
static bool is_word(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/";
    static const char others[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/0123456789_.:-";
    static const char *const taken[] = {"true", "false", "yes", "no", "on", "off", "y", "n", "null"};
    size_t len = strlen(text);
    bool free_word =
        len > 0 && strspn(text, letters) > 0 && strspn(text, others) == len && text[len - 1] != ':';
    for (size_t at = 0; at < sizeof taken / sizeof taken[0] && free_word; at++) {
        free_word = strcasecmp(text, taken[at]) != 0;
    }
    return free_word;
}

static void show_scalar(const struct option_set *set, size_t at, struct text *out)
{
    const struct option_value *value = &set->values[at];
    struct text shown;
    text_init(&shown, SHOWN_MAX_BYTES);
    if (set->section[0] == '\0' && strcmp(set->table[at].name, "database") == 0) {
        pg_describe(&shown, value->text);
    } else {
        option_show(&shown, &set->table[at], value);
    }
    if (is_plain(&set->table[at]) || is_word(text_get(&shown))) {
        text_add(out, text_get(&shown));
    } else {
        text_add_json(out, bytes_of(text_get(&shown)));
    }
    text_finish(&shown);
}

/* ["a", "b"] or {"x": "1"}; one that is not set is shown by nothing, which YAML reads as null. */
static void show_value(const struct option_set *set, size_t at, struct text *out)
{
    const struct outbox_option *row = &set->table[at];
    const struct option_value *value = &set->values[at];
    bool map = row->type == OUTBOX_OPT_MAP;
    if (!value->is_set) {
        return;
    }
    if (row->type != OUTBOX_OPT_LIST && !map) {
        show_scalar(set, at, out);
        return;
    }
    text_add(out, map ? "{" : "[");
    for (size_t item = 0; item < value->count; item++) {
        struct text shown;
        text_init(&shown, SHOWN_MAX_BYTES);
        option_show_item(&shown, row, value->items[item]);
        text_add(out, item > 0 ? ", " : "");
        if (map) {
            struct text name;
            text_init(&name, SHOWN_MAX_BYTES);
            option_show_name(&name, row, value, item);
            text_add_json(out, bytes_of(text_get(&name)));
            text_add(out, ": ");
            text_finish(&name);
        }
        text_add_json(out, bytes_of(text_get(&shown)));
        text_finish(&shown);
    }
    text_add(out, map ? "}" : "]");
}

static void show_set(const struct option_set *set, struct text *out)
{
    for (size_t at = 0; at < set->count; at++) {
        const struct option_value *value = &set->values[at];
        const char *dot = set->section[0] ? "." : "";
        /* Read again, a secret of nothing would be a mistake. */
        const char *unset = !value->is_set && set->table[at].flags & OUTBOX_OPT_SECRET ? "# " : "";
        text_addf(out, "%s%s%s%s: ", unset, set->section, dot, set->table[at].name);
        show_value(set, at, out);
        text_addf(out, "  # %s", value->is_set ? option_origin_name(value->origin) : "not set");
        if (value->is_set && value->origin != OPTION_DEFAULT) {
            text_addf(out, " %s", value->place);
        }
        text_add(out, "\n");
    }
}

void config_print_values(const struct config *config, struct text *out)
{
    show_set(&config->core, out);
    for (size_t at = 0; at < config->section_count; at++) {
        if (is_shown(config, &config->sections[at])) {
            show_set(&config->sections[at], out);
        }
    }
}

/* ---- options for people ---- */

static const char *type_name(const struct outbox_option *row)
{
    static const char *const names[] = {
        "text",        "whole number", "true or false", "duration (10s)",
        "size (8MiB)", NULL,           "list of texts", "mapping of names to texts"};
    return row->type == OUTBOX_OPT_CHOICE ? row->choices : names[row->type];
}

static void add_bounds(struct text *out, const struct outbox_option *row)
{
    const char *unit = row->type == OUTBOX_OPT_DURATION_MS ? " ms"
                       : row->type == OUTBOX_OPT_BYTES     ? " bytes"
                                                           : "";
    if (row->min != 0 || row->max != 0) {
        text_addf(out, ", %lld to %lld%s", (long long)row->min, (long long)row->max, unit);
    }
}

void config_print_options(const struct outbox_option *table, const char *section, struct text *out)
{
    for (const struct outbox_option *row = table; row->name; row++) {
        text_addf(out, "  %s%s%s: ", section, section[0] ? "." : "", row->name);
        text_add_printable(out, bytes_of(type_name(row))); /* a plugin's texts may hold line feeds */
        add_bounds(out, row);
        text_add(out, row->flags & OUTBOX_OPT_REQUIRED ? ", required" : "");
        text_add(out, row->flags & OUTBOX_OPT_SECRET ? ", secret" : "");
        if (row->flags & (OUTBOX_OPT_SECRET | OUTBOX_OPT_URL)) {
            text_addf(out, " (also %s_file)", row->name);
        }
        if (row->fallback && row->fallback[0]) {
            text_add(out, ", default ");
            text_add_printable(out, bytes_of(row->fallback));
        }
        text_add(out, "\n      ");
        text_add_printable(out, bytes_of(row->help));
        text_add(out, "\n");
    }
}

/* ---- a sample file ---- */

/* "a,b" as ["a", "b"], "x=1,y=2" as {"x": "1", "y": "2"}. */
static void add_yaml_items(struct text *out, const char *items, bool map)
{
    text_add(out, map ? "{" : "[");
    for (const char *at = items; *at;) {
        size_t len = strcspn(at, ",");
        size_t name_len = map ? strcspn(at, "=") : len;
        text_add(out, at > items ? ", " : "");
        text_add_json(out, (struct bytes){at, name_len});
        if (map && name_len < len) {
            text_add(out, ": ");
            text_add_json(out, (struct bytes){at + name_len + 1, len - name_len - 1});
        }
        at += len + (at[len] == ',');
    }
    text_add(out, map ? "}" : "]");
}

static void add_yaml_value(struct text *out, const struct outbox_option *row)
{
    /* Words are quoted: "off" would be a boolean to other readers of YAML. */
    const char *value = row->fallback ? row->fallback : "";
    if (row->type == OUTBOX_OPT_MAP || row->type == OUTBOX_OPT_LIST) {
        add_yaml_items(out, value, row->type == OUTBOX_OPT_MAP);
    } else if (is_plain(row)) {
        text_add(out, value);
    } else {
        text_add_json(out, bytes_of(value));
    }
}

/* Writes "a:" and "  b:" for what is new in "a.b.c" against the row before. */
static int open_branches(struct text *out, const char *name, const char *before, const char *margin)
{
    int depth = 0;
    size_t from = 0;
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.'), depth++) {
        size_t len = (size_t)(dot - name);
        if (strncmp(name, before, len + 1) != 0) {
            text_addf(out, "%s%*s%.*s:\n", margin, depth * 2, "", (int)(len - from), name + from);
        }
        from = len + 1;
    }
    return depth;
}

static void add_sample(struct text *out, const struct outbox_option *table, const char *margin)
{
    const char *before = "";
    for (const struct outbox_option *row = table; row->name; row++) {
        int depth = open_branches(out, row->name, before, margin);
        const char *dot = strrchr(row->name, '.');
        const char *unset = row->fallback ? "" : "# ";
        text_addf(out, "%s%*s# ", margin, depth * 2, "");
        text_add_printable(out, bytes_of(row->help)); /* a line feed in it would begin a key */
        text_addf(out, "\n%s%*s%s%s: ", margin, depth * 2, "", unset, dot ? dot + 1 : row->name);
        add_yaml_value(out, row);
        text_add(out, "\n");
        before = row->name;
    }
}

void config_print_sample(const struct config *config, struct text *out)
{
    text_add(out, "# outbox-relay: every option with its default. Unset ones are commented out.\n\n");
    add_sample(out, config->core.table, "");
    for (size_t at = 0; at < config->section_count; at++) {
        const struct option_set *set = &config->sections[at];
        if (is_shown(config, set) && set->count > 0) {
            text_addf(out, "\n%s:\n", set->section);
            add_sample(out, set->table, "  ");
        }
    }
}

/* ---- JSON Schema ---- */

/* The default as the file would have it. */
static json_t *default_of(const struct outbox_option *row)
{
    bool map = row->type == OUTBOX_OPT_MAP;
    if (row->type == OUTBOX_OPT_INT) {
        return json_integer(strtoll(row->fallback, NULL, 10));
    }
    if (row->type == OUTBOX_OPT_BOOL) {
        return json_boolean(strcmp(row->fallback, "true") == 0);
    }
    if (row->type != OUTBOX_OPT_LIST && !map) {
        return json_string(row->fallback);
    }
    json_t *items = map ? json_object() : json_array();
    for (const char *at = row->fallback; *at;) {
        size_t len = strcspn(at, ",");
        size_t name_len = map ? strcspn(at, "=") : 0;
        if (map && name_len < len) {
            char name[NAME_MAX_BYTES];
            (void)snprintf(name, sizeof name, "%.*s", (int)name_len, at);
            (void)json_object_set_new(items, name, json_stringn(at + name_len + 1, len - name_len - 1));
        } else if (!map) {
            (void)json_array_append_new(items, json_stringn(at, len));
        }
        at += len + (at[len] == ',');
    }
    return items;
}

static json_t *schema_of(const struct outbox_option *row)
{
    json_t *schema = json_object();
    switch (row->type) {
    case OUTBOX_OPT_INT:
        (void)json_object_set_new(schema, "type", json_string("integer"));
        (void)json_object_set_new(schema, "minimum", json_integer(row->min));
        if (row->max != 0) {
            (void)json_object_set_new(schema, "maximum", json_integer(row->max));
        }
        break;
    case OUTBOX_OPT_BOOL:
        (void)json_object_set_new(schema, "type", json_string("boolean"));
        break;
    case OUTBOX_OPT_DURATION_MS:
        (void)json_object_set_new(schema, "type", json_pack("[s,s]", "string", "integer"));
        (void)json_object_set_new(schema, "pattern", json_string("^(0|[0-9]+(ms|s|m|h|d))$"));
        (void)json_object_set_new(schema, "minimum", json_integer(0)); /* a number without a unit is 0 */
        (void)json_object_set_new(schema, "maximum", json_integer(0));
        break;
    case OUTBOX_OPT_BYTES:
        (void)json_object_set_new(schema, "type", json_pack("[s,s]", "string", "integer"));
        (void)json_object_set_new(schema, "pattern", json_string("^[0-9]+(B|KiB|MiB|GiB|kB|MB)?$"));
        break;
    case OUTBOX_OPT_CHOICE: {
        json_t *choices = json_array();
        for (const char *at = row->choices; *at; at += strcspn(at, "|"), at += *at == '|') {
            (void)json_array_append_new(choices, json_stringn(at, strcspn(at, "|")));
        }
        (void)json_object_set_new(schema, "enum", choices);
        break;
    }
    case OUTBOX_OPT_LIST:
        (void)json_object_update_new(
            schema, json_pack("{s:[s,s], s:{s:s}}", "type", "array", "string", "items", "type", "string"));
        break;
    case OUTBOX_OPT_MAP:
        (void)json_object_update_new(schema, json_pack("{s:[s,s], s:{s:s}}", "type", "object", "string",
                                                       "additionalProperties", "type", "string"));
        break;
    case OUTBOX_OPT_STRING:
        (void)json_object_set_new(schema, "type", json_string("string"));
        break;
    }
    (void)json_object_set_new(schema, "description", json_string(row->help));
    if (row->fallback) {
        (void)json_object_set_new(schema, "default", default_of(row));
    }
    return schema;
}

static json_t *object_schema(void)
{
    return json_pack("{s:[s,s], s:b, s:{}}", "type", "object", "null", "additionalProperties", 0,
                     "properties");
}

/* The object below `root` that "a.b" of "a.b.c" names, made where it is missing; *leaf = "c". */
static json_t *branch(json_t *root, const char *name, const char **leaf)
{
    json_t *at = root;
    *leaf = name;
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(*leaf, '.')) {
        char part[NAME_MAX_BYTES];
        (void)snprintf(part, sizeof part, "%.*s", (int)(dot - *leaf), *leaf);
        json_t *properties = json_object_get(at, "properties");
        json_t *next = json_object_get(properties, part);
        if (!next) {
            next = object_schema();
            (void)json_object_set_new(properties, part, next);
        }
        at = next;
        *leaf = dot + 1;
    }
    return at;
}

static json_t *table_schema(const struct outbox_option *table)
{
    json_t *root = object_schema();
    for (const struct outbox_option *row = table; row->name; row++) {
        const char *leaf = NULL;
        json_t *properties = json_object_get(branch(root, row->name, &leaf), "properties");
        (void)json_object_set_new(properties, leaf, schema_of(row));
        if (row->flags & (OUTBOX_OPT_SECRET | OUTBOX_OPT_URL)) {
            char twin[NAME_MAX_BYTES];
            (void)snprintf(twin, sizeof twin, "%s_file", leaf);
            (void)json_object_set_new(properties, twin,
                                      json_pack("{s:s, s:s}", "type", "string", "description",
                                                "file that holds the value of the option beside it"));
        }
    }
    return root;
}

void config_print_schema(const struct config *config, struct text *out)
{
    json_t *root = table_schema(config->core.table);
    json_t *properties = json_object_get(root, "properties");
    (void)json_object_set_new(root, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
    (void)json_object_set_new(root, "title", json_string("outbox-relay configuration"));
    for (size_t at = 0; at < config->section_count; at++) {
        (void)json_object_set_new(properties, config->sections[at].section,
                                  table_schema(config->sections[at].table));
    }
    char *text = json_dumps(root, JSON_INDENT(2));
    text_add(out, text ? text : "");
    text_add(out, "\n");
    free(text);
    json_decref(root);
}
