#include <criterion/criterion.h>
#include <string.h>

#include "base/bytes.h"

static void expect_json(const char *value, size_t len, const char *wanted)
{
    struct text out;
    text_init(&out, 1000);
    text_add_json(&out, (struct bytes){value, len});
    cr_expect_str_eq(text_get(&out), wanted);
    text_finish(&out);
}

Test(bytes, json_strings_escape_quotes_backslashes_and_control_characters)
{
    expect_json("a\"b\\c\nd\x01\x7f", 9, "\"a\\\"b\\\\c\\nd\\u0001\\u007f\"");
    expect_json("a\0b", 3, "\"a\\u0000b\"");
    expect_json("", 0, "\"\"");
}

Test(bytes, json_strings_replace_what_is_not_utf8)
{
    expect_json("gr\xC3\xBC\xC3\x9F", 6, "\"gr\xC3\xBC\xC3\x9F\"");
    expect_json("\xF0\x9F\x90\x98", 4, "\"\xF0\x9F\x90\x98\"");
    expect_json("a\xFFz", 3, "\"a\xEF\xBF\xBDz\"");
    expect_json("\xC3", 1, "\"\xEF\xBF\xBD\"");
    expect_json("\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""); /* a surrogate */
    expect_json("\xC0\xAF", 2, "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");                 /* overlong */
}

Test(bytes, a_text_keeps_its_maximum_and_says_so)
{
    struct text text;
    text_init(&text, 5);
    text_add(&text, "12345");
    cr_expect(!text.overflow);
    text_add(&text, "6");
    cr_expect(text.overflow);
    cr_expect_str_eq(text_get(&text), "12345");
    text_clear(&text);
    text_addf(&text, "%d", 42);
    cr_expect_str_eq(text_get(&text), "42");
    text_finish(&text);
}

Test(bytes, printable_copies_drop_control_characters_and_cut_at_characters)
{
    char out[6];
    bytes_copy_printable(out, sizeof out, (struct bytes){"a\nb\xFF\xC3\xBC", 6});
    cr_expect_str_eq(out, "a b?"); /* the umlaut would not fit whole */
}

Test(bytes, numbers_are_written_in_decimal_to_their_limits)
{
    static const struct {
        int64_t number;
        const char *text;
    } rows[] = {{0, "0"},
                {7, "7"},
                {-1, "-1"},
                {INT64_MAX, "9223372036854775807"},
                {INT64_MIN, "-9223372036854775808"}};
    for (size_t at = 0; at < sizeof rows / sizeof rows[0]; at++) {
        struct text out;
        text_init(&out, 30);
        text_add_number(&out, rows[at].number);
        cr_expect_str_eq(text_get(&out), rows[at].text);
        text_finish(&out);
    }
}

Test(bytes, quoted_array_elements_escape_quotes_and_backslashes)
{
    struct text out;
    text_init(&out, 100);
    text_add_quoted(&out, bytes_of("a\"b\\c,{}"));
    cr_expect_str_eq(text_get(&out), "\"a\\\"b\\\\c,{}\"");
    text_finish(&out);
}
