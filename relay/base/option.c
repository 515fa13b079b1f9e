#include "base/option.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/printable.h"
#include "base/secrets.h"

enum { LIST_MAX_ITEMS = 256 };

const char *option_origin_name(enum option_origin origin)
{
    static const char *const names[] = {"default", "file", "environment", "flag"};
    return names[origin];
}

/* Any of them may be secret, and freed memory is read by whoever finds a way to read memory. */
static void wipe(char *text)
{
    if (text) {
        explicit_bzero(text, strlen(text));
        free(text);
    }
}

static void clear_value(struct option_value *value)
{
    for (size_t at = 0; at < value->count; at++) {
        wipe(value->items[at]);
        if (value->names) {
            free(value->names[at]);
        }
    }
    wipe(value->text);
    free(value->items);
    free(value->names);
    *value = (struct option_value){0};
}

/* Its name is the first thing in a row, whatever the row's size. */
static size_t count_rows(const char *rows, size_t row_bytes)
{
    const char *name = NULL;
    size_t count = 0;
    while (rows && (memcpy(&name, rows + count * row_bytes, sizeof name), name)) {
        count++;
    }
    return count;
}

int option_set_init(struct option_set *set, const char *section, const struct outbox_option *table,
                    size_t row_bytes, struct err *err)
{
    const size_t own_bytes = sizeof *table;
    const char *rows = (const char *)table;
    row_bytes = row_bytes ? row_bytes : own_bytes;
    size_t count = count_rows(rows, row_bytes);
    *set = (struct option_set){.section = section, .count = count};
    set->table = calloc(count + 1, own_bytes);
    set->values = calloc(count + 1, sizeof *set->values);
    if (!set->table || !set->values) {
        option_set_finish(set);
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    for (size_t at = 0; at < count; at++) {
        memcpy(&set->table[at], rows + at * row_bytes, row_bytes < own_bytes ? row_bytes : own_bytes);
    }
    for (size_t at = 0; at < count; at++) {
        const char *fallback = set->table[at].fallback;
        if (fallback && option_assign(set, (int)at, fallback, OPTION_DEFAULT, "default", err) != 0) {
            err->class = ERR_INTERNAL;
            (void)err_prefix(err, "%s", set->table[at].name);
            option_set_finish(set);
            return -1;
        }
    }
    return 0;
}

void option_set_finish(struct option_set *set)
{
    for (size_t at = 0; set->values && at < set->count; at++) {
        clear_value(&set->values[at]);
    }
    free(set->values);
    free(set->table);
    *set = (struct option_set){0};
}

int option_find(const struct option_set *set, const char *name)
{
    for (size_t at = 0; at < set->count; at++) {
        if (strcmp(set->table[at].name, name) == 0) {
            return (int)at;
        }
    }
    return -1;
}

size_t option_distance(const char *a, const char *b)
{
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    size_t row[64];
    if (a_len > 63 || b_len > 63) {
        return SIZE_MAX;
    }
    for (size_t at = 0; at <= b_len; at++) {
        row[at] = at;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t substitute = diagonal + (a[i - 1] != b[j - 1]);
            size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = substitute < shorter ? substitute : shorter;
        }
    }
    return row[b_len];
}

/* A decimal number and what follows it; -1 when there is no number or it is too large. */
static int split_number(const char *text, int64_t *out, const char **unit)
{
    int64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (number > (INT64_MAX - 9) / 10) {
            return -1;
        }
        number = number * 10 + (*at - '0');
    }
    *out = number;
    *unit = at;
    return at == text ? -1 : 0;
}

struct unit {
    const char *name;
    int64_t factor;
};

static int parse_with_units(const char *text, const struct unit *units, int64_t *out)
{
    const char *unit = NULL;
    int64_t number = 0;
    if (split_number(text, &number, &unit) != 0) {
        return -1;
    }
    if (number == 0 && *unit == '\0') {
        *out = 0;
        return 0;
    }
    for (; units->name; units++) {
        if (strcmp(unit, units->name) == 0 && number <= INT64_MAX / units->factor) {
            *out = number * units->factor;
            return 0;
        }
    }
    return -1;
}

int option_parse_duration(const char *text, int64_t *out_ms, struct err *err)
{
    static const struct unit units[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                        {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
    if (parse_with_units(text, units, out_ms) != 0) {
        return err_set(err, ERR_CONFIG,
                       "'%s' is not a duration: write a whole number and ms, s, m, h or d, such as 10s",
                       text);
    }
    return 0;
}

int option_parse_bytes(const char *text, int64_t *out_bytes, struct err *err)
{
    static const struct unit units[] = {{"", 1},          {"B", 1},     {"KiB", 1 << 10}, {"MiB", 1 << 20},
                                        {"GiB", 1 << 30}, {"kB", 1000}, {"MB", 1000000},  {NULL, 0}};
    if (parse_with_units(text, units, out_bytes) != 0) {
        return err_set(err, ERR_CONFIG,
                       "'%s' is not a size: write a whole number and B, KiB, MiB or GiB, such as 8MiB", text);
    }
    return 0;
}

static int parse_bool(const char *text, int64_t *out, struct err *err)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0) {
        *out = text[0] == 't';
        return 0;
    }
    return err_set(err, ERR_CONFIG, "'%s' is not a yes or no: write true or false", text);
}

static int parse_choice(const struct outbox_option *row, const char *text, struct err *err)
{
    size_t len = strlen(text);
    for (const char *at = row->choices; at && *at; at += strcspn(at, "|"), at += *at == '|') {
        if (len > 0 && strcspn(at, "|") == len && strncmp(at, text, len) == 0) {
            return 0;
        }
    }
    return err_set(err, ERR_CONFIG, "'%s' is not one of %s", text, row->choices ? row->choices : "nothing");
}

static int parse_scalar(const struct outbox_option *row, const char *text, int64_t *number, struct err *err)
{
    const char *rest = NULL;
    switch (row->type) {
    case OUTBOX_OPT_INT:
        if (split_number(text, number, &rest) != 0 || *rest != '\0') {
            return err_set(err, ERR_CONFIG, "'%s' is not a whole number", text);
        }
        return 0;
    case OUTBOX_OPT_BOOL:
        return parse_bool(text, number, err);
    case OUTBOX_OPT_DURATION_MS:
        return option_parse_duration(text, number, err);
    case OUTBOX_OPT_BYTES:
        return option_parse_bytes(text, number, err);
    case OUTBOX_OPT_CHOICE:
        return parse_choice(row, text, err);
    case OUTBOX_OPT_STRING:
    case OUTBOX_OPT_LIST:
    case OUTBOX_OPT_MAP:
        break;
    }
    return 0;
}

static int check_bounds(const struct outbox_option *row, int64_t number, const char *text, struct err *err)
{
    if ((row->min != 0 || row->max != 0) && (number < row->min || number > row->max)) {
        return err_set(err, ERR_CONFIG, "'%s' is out of bounds: allowed is %lld to %lld%s", text,
                       (long long)row->min, (long long)row->max,
                       row->type == OUTBOX_OPT_DURATION_MS ? " ms"
                       : row->type == OUTBOX_OPT_BYTES     ? " bytes"
                                                           : "");
    }
    return 0;
}

int option_begin(struct option_set *set, int index, enum option_origin origin, const char *place,
                 struct err *err)
{
    enum outbox_option_type type = set->table[index].type;
    struct option_value *value = &set->values[index];
    clear_value(value);
    value->origin = origin;
    printable_copy(value->place, sizeof value->place, bytes_of(place));
    value->is_set = true;
    if (type != OUTBOX_OPT_LIST && type != OUTBOX_OPT_MAP) {
        return 0;
    }
    value->items = calloc(LIST_MAX_ITEMS + 1, sizeof *value->items);
    value->names = type == OUTBOX_OPT_MAP ? calloc(LIST_MAX_ITEMS + 1, sizeof *value->names) : NULL;
    if (!value->items || (type == OUTBOX_OPT_MAP && !value->names)) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    return 0;
}

static const char NAME_LETTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

int option_append(struct option_set *set, int index, const char *name, const char *text, struct err *err)
{
    struct option_value *value = &set->values[index];
    bool secret = set->table[index].flags & OUTBOX_OPT_SECRET;
    if (value->count == LIST_MAX_ITEMS) {
        return err_set(err, ERR_CONFIG, "more than %d entries", LIST_MAX_ITEMS);
    }
    /* 'Authorization: Bearer ...', or what follows a comma within a value: a piece of it must be no name */
    if (secret && name && (name[0] == '\0' || strspn(name, NAME_LETTERS) < strlen(name))) {
        return err_set(err, ERR_CONFIG,
                       "a name is none: letters, digits, '-', '_' and '.', then '=' or ': '");
    }
    for (size_t at = 0; name && value->names && at < value->count; at++) {
        if (bytes_equal(bytes_of(value->names[at]), bytes_of(name))) {
            return err_set(err, ERR_CONFIG, "'%s' stands there twice", secret ? "***" : name);
        }
    }
    char *copy = strdup(text);
    char *name_copy = name ? strdup(name) : NULL;
    if (!copy || (name && !name_copy)) {
        free(copy);
        free(name_copy);
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    value->items[value->count] = copy;
    if (value->names) {
        value->names[value->count] = name_copy;
    } else {
        free(name_copy); /* a list's items have no names */
    }
    value->count++;
    return 0;
}

/* "a,b,c" or "x=1,y=2", or each on a line of its own. */
static int append_all(struct option_set *set, int index, const char *text, const char *separators,
                      struct err *err)
{
    bool map = set->table[index].type == OUTBOX_OPT_MAP;
    if (text[0] == (map ? '{' : '[')) {
        return err_set(err, ERR_CONFIG, "write %s, without brackets: only a file of YAML has them",
                       map ? "NAME=VALUE,NAME=VALUE" : "one,another");
    }
    char *copy = strdup(text);
    char *rest = copy;
    int result = copy ? 0 : err_set(err, ERR_INTERNAL, "out of memory");
    for (char *item = NULL; result == 0 && (item = strsep(&rest, separators)) != NULL;) {
        char *equals = map ? strchr(item, '=') : NULL;
        if (item[0] == '\0') {
            continue;
        }
        if (map && !equals) {
            bool secret = set->table[index].flags & OUTBOX_OPT_SECRET;
            result = err_set(err, ERR_CONFIG, "'%s' is not NAME=VALUE", secret ? "***" : item);
            break;
        }
        if (equals) {
            *equals = '\0';
        }
        result = option_append(set, index, equals ? item : NULL, equals ? equals + 1 : item, err);
    }
    if (copy) {
        explicit_bzero(copy, strlen(text)); /* cut to pieces by now */
    }
    free(copy);
    return result;
}

int option_assign(struct option_set *set, int index, const char *text, enum option_origin origin,
                  const char *place, struct err *err)
{
    const struct outbox_option *row = &set->table[index];
    int64_t number = 0;
    bool scalar = row->type != OUTBOX_OPT_LIST && row->type != OUTBOX_OPT_MAP;
    if (scalar && (parse_scalar(row, text, &number, err) != 0 || check_bounds(row, number, text, err) != 0)) {
        return -1;
    }
    if (option_begin(set, index, origin, place, err) != 0) {
        return -1;
    }
    if (!scalar) {
        return append_all(set, index, text, ",", err);
    }
    struct option_value *value = &set->values[index];
    value->number = number;
    value->text = strdup(text);
    return value->text ? 0 : err_set(err, ERR_INTERNAL, "out of memory");
}

int option_assign_lines(struct option_set *set, int index, const char *text, enum option_origin origin,
                        const char *place, struct err *err)
{
    return option_begin(set, index, origin, place, err) == 0 ? append_all(set, index, text, "\r\n", err) : -1;
}

const struct option_value *option_get(const struct option_set *set, const char *name)
{
    int index = option_find(set, name);
    if (index < 0) {
        (void)fprintf(stderr,
                      "outbox-relay: option '%s' was asked for, which the table of %s does not have\n", name,
                      set->section[0] ? set->section : "the relay");
        abort(); /* a fault of the caller: every name stands in a constant table */
    }
    return &set->values[index];
}

const char *option_text(const struct option_set *set, const char *name)
{
    const struct option_value *value = option_get(set, name);
    return value->is_set ? value->text : NULL;
}

int64_t option_number(const struct option_set *set, const char *name)
{
    return option_get(set, name)->number;
}

void option_show_item(struct text *out, const struct outbox_option *row, const char *item)
{
    size_t len = strlen(row->name);
    bool file = len > 5 && strcmp(row->name + len - 5, "_file") == 0;
    if (row->flags & OUTBOX_OPT_SECRET || (file && strchr(item, '\n'))) {
        text_add(out, "***"); /* of a file its content, where the name belongs */
    } else if (row->flags & OUTBOX_OPT_URL) {
        secrets_show_url(out, item);
    } else {
        text_add(out, item);
    }
}

void option_show_name(struct text *out, const struct outbox_option *row, const struct option_value *value,
                      size_t at)
{
    bool divided = value->origin != OPTION_FILE || value->apart; /* by us, at marks that a value may hold */
    if (row->flags & OUTBOX_OPT_SECRET && divided) {
        text_addf(out, "***%zu", at + 1);
    } else {
        text_add(out, value->names[at]);
    }
}

void option_show(struct text *out, const struct outbox_option *row, const struct option_value *value)
{
    if (!value->is_set) {
        return;
    }
    if (row->type != OUTBOX_OPT_LIST && row->type != OUTBOX_OPT_MAP) {
        option_show_item(out, row, value->text);
        return;
    }
    text_add(out, row->type == OUTBOX_OPT_LIST ? "[" : "{");
    for (size_t at = 0; at < value->count; at++) {
        text_add(out, at > 0 ? ", " : "");
        if (value->names) {
            option_show_name(out, row, value, at);
            text_add(out, ": ");
        }
        option_show_item(out, row, value->items[at]);
    }
    text_add(out, row->type == OUTBOX_OPT_LIST ? "]" : "}");
}
