/* Foreign text: what a terminal, a log or a page may be shown of it. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/printable.h"

static void expect_json(const char *value, size_t len, const char *wanted)
{
    struct text out;
    text_init(&out, 1000);
    text_add_json(&out, (struct bytes){value, len});
    cr_expect_str_eq(text_get(&out), wanted);
    text_finish(&out);
}

Test(printable, json_strings_escape_quotes_backslashes_and_control_characters)
{
    expect_json("a\"b\\c\nd\x01\x7f", 9, "\"a\\\"b\\\\c\\nd\\u0001\\u007f\"");
    expect_json("a\0b", 3, "\"a\\u0000b\"");
    expect_json("", 0, "\"\"");
}

Test(printable, json_strings_replace_what_is_not_utf8)
{
    expect_json("gr\xC3\xBC\xC3\x9F", 6, "\"gr\xC3\xBC\xC3\x9F\"");
    expect_json("\xF0\x9F\x90\x98", 4, "\"\xF0\x9F\x90\x98\"");
    expect_json("a\xFFz", 3, "\"a\xEF\xBF\xBDz\"");
    expect_json("\xC3", 1, "\"\xEF\xBF\xBD\"");
    expect_json("\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""); /* a surrogate */
    expect_json("\xC0\xAF", 2, "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");                 /* overlong */
}

/* What speaks to a terminal, or hides: each, and the neighbours that stay. */
static const struct {
    const char *text;
    const char *shown;
} rows[] = {
    {"plain, \xC3\xA4, \xE6\xBC\xA2, \xF0\x9F\x90\x98", "plain, \xC3\xA4, \xE6\xBC\xA2, \xF0\x9F\x90\x98"},
    {"a\x1b[2J", "a\\u001b[2J"},                           /* ESC */
    {"\x07\x08\x7f", "\\u0007\\u0008\\u007f"},             /* BEL, BS, DEL */
    {"a\nb\rc\td", "a\\nb\\rc\\td"},                       /* lines of its own */
    {"\xC2\x80\xC2\x9B\xC2\x9F", "\\u0080\\u009b\\u009f"}, /* C1: U+009B is CSI */
    {"\xC2\xA0", "\xC2\xA0"},                              /* a space that does not break */
    {"\xC2\xAD", "\\u00ad"},                               /* a soft hyphen */
    {"\xD8\x9C", "\\u061c"},
    {"\xE2\x80\x8B", "\\u200b"},
    {"\xE2\x80\x8C\xE2\x80\x8D", "\xE2\x80\x8C\xE2\x80\x8D"}, /* joiners: words need them */
    {"\xE2\x80\x8E\xE2\x80\x8F", "\\u200e\\u200f"},
    {"\xE2\x80\xA8\xE2\x80\xA9", "\\u2028\\u2029"}, /* line and paragraph separator */
    {"\xE2\x80\xAA\xE2\x80\xAE", "\\u202a\\u202e"}, /* bidi embedding, override */
    {"\xE2\x80\xAF", "\xE2\x80\xAF"},
    {"\xE2\x81\xA6\xE2\x81\xA9", "\\u2066\\u2069"}, /* bidi isolates */
    {"\xEF\xBB\xBF", "\\ufeff"},
    {"\xEF\xBF\xB9", "\\ufff9"},
    {"\xCD\x8F", "\\u034f"},                                           /* what joins, and has no shape */
    {"\xE3\x85\xA4\xE1\x85\x9F\xEF\xBE\xA0", "\\u3164\\u115f\\uffa0"}, /* Hangul's fillers */
    {"\xE1\xA0\x8E\xE2\xA0\x80", "\\u180e\\u2800"},
    {"\xEF\xB8\x8F\xF3\xA0\x84\x80", "\\ufe0f\\udb40\\udd00"}, /* selectors of variants */
    {"\xF3\xA0\x81\x81", "\\udb40\\udc41"},                    /* a tag, which nobody sees */
    {"\x9b"
     "2J",
     "\xEF\xBF\xBD"
     "2J"}, /* one byte of Latin-1: no UTF-8 */
};

Test(printable, what_speaks_to_a_terminal_or_hides_is_escaped_and_nothing_else)
{
    for (size_t at = 0; at < sizeof rows / sizeof rows[0]; at++) {
        struct text text;
        char copy[64];
        text_init(&text, 100);
        text_add_printable(&text, bytes_of(rows[at].text));
        cr_expect_str_eq(text_get(&text), rows[at].shown, "row %zu", at);
        printable_copy(copy, sizeof copy, bytes_of(rows[at].text));
        cr_expect_str_eq(copy, rows[at].shown, "row %zu", at);
        text_clear(&text);
        text_add_printable(&text, bytes_of(rows[at].shown));
        cr_expect_str_eq(text_get(&text), rows[at].shown, "row %zu: twice is once", at);
        text_finish(&text);
    }
}

Test(printable, copies_are_cut_between_characters_and_escapes)
{
    char out[6];
    printable_copy(out, sizeof out, (struct bytes){"abcd\xC3\xBC", 6});
    cr_expect_str_eq(out, "abcd"); /* the umlaut would not fit whole */
    printable_copy(out, sizeof out, (struct bytes){"abc\x1b", 4});
    cr_expect_str_eq(out, "abc");
    printable_copy(out, sizeof out, (struct bytes){"a\0b", 3});
    cr_expect_str_eq(out, "a");
}
