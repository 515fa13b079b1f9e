#include "base/output.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include "base/printable.h"

void output_piece(FILE *to, struct bytes piece)
{
    for (size_t at = 0; at < piece.len;) {
        char escape[PRINTABLE_ESCAPE_BYTES];
        size_t run = printable_run(piece, at);
        (void)fwrite(piece.ptr + at, 1, run, to);
        at += run;
        if (at < piece.len) {
            at += printable_escape(piece, at, escape);
            (void)fputs(escape, to);
        }
    }
}

__attribute__((format(printf, 2, 0))) static void put_formatted(FILE *to, const char *format, va_list args)
{
    struct text text;
    text_init(&text, SIZE_MAX - 1);
    text_addv(&text, format, args);
    output_piece(to, text_view(&text));
    text_finish(&text);
}

void output_line(FILE *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_formatted(to, format, args);
    va_end(args);
    (void)fputc('\n', to);
}

void output_passing(FILE *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputc('\r', to);
    put_formatted(to, format, args);
    va_end(args);
}

void output_text(FILE *to, struct bytes text)
{
    while (text.len > 0) {
        const char *end = memchr(text.ptr, '\n', text.len);
        size_t len = end ? (size_t)(end - text.ptr) : text.len;
        output_piece(to, (struct bytes){text.ptr, len});
        if (end) {
            (void)fputc('\n', to);
            len++;
        }
        text = (struct bytes){text.ptr + len, text.len - len};
    }
}
