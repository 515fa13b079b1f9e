#include <criterion/criterion.h>
#include <string.h>

#include "base/option.h"

static const struct outbox_option table[] = {
    {"name", OUTBOX_OPT_STRING, 0, "x", NULL, 0, 0, ""},
    {"count", OUTBOX_OPT_INT, 0, "3", NULL, 1, 10, ""},
    {"wait", OUTBOX_OPT_DURATION_MS, 0, "10s", NULL, 0, 60000, ""},
    {"flag", OUTBOX_OPT_BOOL, 0, "false", NULL, 0, 0, ""},
    {"mode", OUTBOX_OPT_CHOICE, 0, "one", "one|two", 0, 0, ""},
    {"list", OUTBOX_OPT_LIST, OUTBOX_OPT_URL, "a,b", NULL, 0, 0, ""},
    {"map", OUTBOX_OPT_MAP, 0, NULL, NULL, 0, 0, ""},
    {"secret", OUTBOX_OPT_STRING, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0, ""},
    {"headers", OUTBOX_OPT_MAP, OUTBOX_OPT_SECRET, NULL, NULL, 0, 0, ""},
    {0},
};

Test(option, durations_take_whole_numbers_with_a_unit)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1 = refused */
    } rows[] = {{"0", 0},
                {"250ms", 250},
                {"10s", 10000},
                {"5m", 300000},
                {"1h", 3600000},
                {"2d", 172800000},
                {"10", -1},
                {"s", -1},
                {"-1s", -1},
                {"1.5s", -1},
                {"10 s", -1},
                {"10sec", -1},
                {"", -1},
                {"99999999999999999999s", -1},
                {"9223372036854775807d", -1}};
    for (size_t at = 0; at < sizeof rows / sizeof rows[0]; at++) {
        int64_t ms = -1;
        struct err err = {0};
        int result = option_parse_duration(rows[at].text, &ms, &err);
        cr_expect_eq(result, rows[at].ms < 0 ? -1 : 0, "%s", rows[at].text);
        cr_expect(result != 0 || ms == rows[at].ms, "%s", rows[at].text);
        cr_expect(result == 0 || err.class == ERR_CONFIG, "%s", rows[at].text);
    }
}

Test(option, sizes_know_binary_and_decimal_units)
{
    int64_t bytes = 0;
    struct err err = {0};
    cr_expect_eq(option_parse_bytes("8MiB", &bytes, &err), 0);
    cr_expect_eq(bytes, 8 << 20);
    cr_expect_eq(option_parse_bytes("512", &bytes, &err), 0);
    cr_expect_eq(bytes, 512);
    cr_expect_eq(option_parse_bytes("8MIB", &bytes, &err), -1);
}

Test(option, a_set_starts_with_its_defaults_and_takes_typed_values)
{
    struct option_set set;
    struct err err = {0};
    cr_assert_eq(option_set_init(&set, "", table, 0, &err), 0, "%s", err.text);
    cr_expect_eq(option_number(&set, "count"), 3);
    cr_expect_eq(option_number(&set, "wait"), 10000);
    cr_expect_eq(option_get(&set, "list")->count, 2);
    cr_expect_null(option_text(&set, "secret"));
    cr_expect_eq(option_assign(&set, option_find(&set, "flag"), "true", OPTION_FLAG, "-o", &err), 0);
    cr_expect_eq(option_number(&set, "flag"), 1);
    cr_expect_eq(option_assign(&set, option_find(&set, "map"), "a=1,b=2", OPTION_FLAG, "-o", &err), 0);
    cr_expect_str_eq(option_get(&set, "map")->names[1], "b");
    cr_expect_str_eq(option_get(&set, "map")->items[1], "2");
    option_set_finish(&set);
}

Test(option, bad_values_are_refused_and_change_nothing)
{
    static const char *const bad[][2] = {{"count", "0"},  {"count", "11"},   {"count", "x"},
                                         {"wait", "61s"}, {"flag", "yes"},   {"mode", "three"},
                                         {"mode", ""},    {"map", "novalue"}};
    struct option_set set;
    struct err err = {0};
    cr_assert_eq(option_set_init(&set, "", table, 0, &err), 0);
    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        err_clear(&err);
        cr_expect_eq(option_assign(&set, option_find(&set, bad[at][0]), bad[at][1], OPTION_FLAG, "-o", &err),
                     -1, "%s=%s", bad[at][0], bad[at][1]);
        cr_expect_eq(err.class, ERR_CONFIG);
    }
    cr_expect_eq(option_number(&set, "count"), 3);
    option_set_finish(&set);
}

Test(option, secrets_are_shown_as_stars)
{
    struct option_set set;
    struct err err = {0};
    struct text out;
    text_init(&out, 200);
    cr_assert_eq(option_set_init(&set, "", table, 0, &err), 0);
    cr_assert_eq(option_assign(&set, option_find(&set, "secret"), "hunter2", OPTION_FLAG, "-o", &err), 0);
    option_show(&out, &table[option_find(&set, "secret")], option_get(&set, "secret"));
    cr_expect_str_eq(text_get(&out), "***");
    text_finish(&out);
    option_set_finish(&set);
}

static void expect_headers(const struct option_set *set, const char *shown)
{
    struct text out;
    text_init(&out, 200);
    option_show(&out, &table[option_find(set, "headers")], option_get(set, "headers"));
    cr_expect_str_eq(text_get(&out), shown);
    text_finish(&out);
}

Test(option, names_in_a_secret_mapping_are_shown_where_yaml_divided_it)
{
    struct option_set set;
    struct err err = {0};
    cr_assert_eq(option_set_init(&set, "", table, 0, &err), 0);
    int index = option_find(&set, "headers");
    cr_assert_eq(option_assign(&set, index, "Cookie=sid=abc,hunter2=x", OPTION_FLAG, "-o", &err), 0);
    expect_headers(&set, "{***1: ***, ***2: ***}");
    cr_assert_eq(option_assign_lines(&set, index, "A=1,B=2\r\n\nC=3\n", OPTION_FILE, "f", &err), 0);
    set.values[index].apart = true;
    expect_headers(&set, "{***1: ***, ***2: ***}");
    cr_expect_str_eq(option_get(&set, "headers")->items[0], "1,B=2");
    cr_expect_str_eq(option_get(&set, "headers")->names[1], "C");
    cr_assert_eq(option_begin(&set, index, OPTION_FILE, "f:1:2", &err), 0);
    cr_assert_eq(option_append(&set, index, "X-Key", "hunter2", &err), 0);
    expect_headers(&set, "{X-Key: ***}");
    option_set_finish(&set);
}

Test(option, what_is_no_name_in_a_secret_mapping_is_refused_and_not_told)
{
    static const char *const bad[] = {"Authorization: Bearer hunter2=", "=hunter2", "hunter2 =x",
                                      "hunter2/=x"};
    struct option_set set;
    struct err err = {0};
    cr_assert_eq(option_set_init(&set, "", table, 0, &err), 0);
    for (size_t at = 0; at < sizeof bad / sizeof *bad; at++) {
        err_clear(&err);
        cr_expect_eq(option_assign(&set, option_find(&set, "headers"), bad[at], OPTION_FLAG, "-o", &err), -1);
        cr_expect(strstr(err.text, "a name is none") && !strstr(err.text, "hunter2"), "%s", err.text);
    }
    option_set_finish(&set);
}

Test(option, distance_counts_edits)
{
    cr_expect_eq(option_distance("workers", "workers"), 0);
    cr_expect_eq(option_distance("worker", "workers"), 1);
    cr_expect_eq(option_distance("wrokers", "workers"), 2);
    cr_expect_eq(option_distance("", "abc"), 3);
}
