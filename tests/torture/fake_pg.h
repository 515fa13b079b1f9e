/* fake_pg - in place of pg.c: takes statements down instead of sending them. */
#ifndef TORTURE_FAKE_PG_H
#define TORTURE_FAKE_PG_H

#include <stddef.h>

enum { FAKE_STATEMENTS = 16, FAKE_VALUES = 5, FAKE_VALUE_BYTES = 1024 };

struct fake_statement {
    const char *sql;
    size_t count;
    char values[FAKE_VALUES][FAKE_VALUE_BYTES];
};

struct fake_log {
    struct fake_statement statements[FAKE_STATEMENTS];
    size_t count;
};

extern struct fake_log fake_log;

#endif
