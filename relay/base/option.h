/*
 * option - tables of options as data: names, types, defaults and bounds, and the typed values read by them.
 *
 * The core and every backend declare their options as `struct outbox_option` tables (outbox_backend.h, the
 * one place where that vocabulary is defined); this module turns text into checked values and keeps where
 * each came from.
 */
#ifndef RELAY_OPTION_H
#define RELAY_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "outbox_backend.h"

enum option_origin { OPTION_DEFAULT = 0, OPTION_FILE, OPTION_ENVIRONMENT, OPTION_FLAG };

struct option_value {
    enum option_origin origin;
    char place[160]; /* "relay.yaml:3:5", "OUTBOX_WORKERS", "-o workers" */
    bool is_set;
    bool apart;     /* it stands in a file of its own, and `place` names who names it */
    char *text;     /* scalars as written */
    int64_t number; /* INT, BOOL, DURATION_MS, BYTES */
    char **items;   /* LIST: values; MAP: values */
    char **names;   /* MAP: names */
    size_t count;
};

/* One table with its values, in the table's order. */
struct option_set {
    const char *section;         /* "amqp"; "" for the core's own */
    struct outbox_option *table; /* a copy, in this program's size of a row; its texts are borrowed */
    struct option_value *values;
    size_t count;
};

/*
 * Fills every value with its default. A default that its own row refuses is ERR_INTERNAL. `row_bytes`: how
 * large a row of the table is where it was built, 0 = as here; a table of NULL has no rows.
 */
int option_set_init(struct option_set *set, const char *section, const struct outbox_option *table,
                    size_t row_bytes, struct err *err) MUST_CHECK;
void option_set_finish(struct option_set *set);

/* The row's index, or -1. `name` is without the section. */
int option_find(const struct option_set *set, const char *name);

/* How many edits turn one name into the other (Levenshtein), for suggestions; SIZE_MAX for names over 63
 * bytes. */
size_t option_distance(const char *a, const char *b);

/* Reads a scalar, or a comma-separated LIST, or NAME=VALUE pairs for a MAP, as flags and environment give
 * them. */
int option_assign(struct option_set *set, int index, const char *text, enum option_origin origin,
                  const char *place, struct err *err) MUST_CHECK;

/* A LIST or MAP, an entry on each line. */
int option_assign_lines(struct option_set *set, int index, const char *text, enum option_origin origin,
                        const char *place, struct err *err) MUST_CHECK;

/* Begins a LIST or MAP anew; option_append then adds its items (name NULL for a LIST). */
int option_begin(struct option_set *set, int index, enum option_origin origin, const char *place,
                 struct err *err) MUST_CHECK;
int option_append(struct option_set *set, int index, const char *name, const char *value,
                  struct err *err) MUST_CHECK;

/* By name; a name that is not in the table is a programming error and aborts. */
const struct option_value *option_get(const struct option_set *set, const char *name);
const char *option_text(const struct option_set *set, const char *name); /* NULL = not set */
int64_t option_number(const struct option_set *set, const char *name);

/* "10s" -> 10000; "8MiB" -> 8388608. */
int option_parse_duration(const char *text, int64_t *out_ms, struct err *err) MUST_CHECK;
int option_parse_bytes(const char *text, int64_t *out_bytes, struct err *err) MUST_CHECK;

/* A value as people may see it: secrets and the credentials of URLs are replaced by ***. */
void option_show(struct text *out, const struct outbox_option *row, const struct option_value *value);

/* The name of an entry of a MAP, likewise: those of a secret one are told where YAML divided it. */
void option_show_name(struct text *out, const struct outbox_option *row, const struct option_value *value,
                      size_t at);

/* One item of a LIST or MAP, likewise. */
void option_show_item(struct text *out, const struct outbox_option *row, const char *item);

const char *option_origin_name(enum option_origin origin);

#endif
