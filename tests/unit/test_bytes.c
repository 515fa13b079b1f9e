#include <criterion/criterion.h>
#include <string.h>

#include "base/bytes.h"

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
