#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, enum err_class class, const char *format, ...)
{
    if (!err || err->class != ERR_NONE) {
        return -1;
    }
    va_list args;
    va_start(args, format);
    err->class = class;
    err->sqlstate[0] = '\0';
    (void)vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    return -1;
}

int err_prefix(struct err *err, const char *format, ...)
{
    char front[sizeof err->text / 2];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(front, sizeof front, format, args);
    va_end(args);
    char whole[sizeof err->text];
    /* Truncation is the wanted behaviour: the cause that no longer fits is less useful than the place. */
    int length = snprintf(whole, sizeof whole, "%s: %s", front, err->text);
    if (length >= (int)sizeof whole) {
        whole[sizeof whole - 1] = '\0';
    }
    memcpy(err->text, whole, sizeof whole);
    return -1;
}

void err_clear(struct err *err)
{
    err->class = ERR_NONE;
    err->sqlstate[0] = '\0';
    err->text[0] = '\0';
}

int err_exit_code(enum err_class class)
{
    switch (class) {
    case ERR_NONE:
        return 0;
    case ERR_USAGE:
        return 64;
    case ERR_CONFIG:
        return 78;
    case ERR_REFUSED:
        return 77;
    case ERR_CONNECTION:
    case ERR_RETRY:
        return 69;
    case ERR_STOPPED:
        return 75;
    case ERR_INTERNAL:
        break;
    }
    return 70;
}
