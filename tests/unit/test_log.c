#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum { LINE_BYTES = 8192, LONG = 3000 };

/* What one event becomes. */
static void write_event(enum log_format format, const char *message, const struct log_field *fields,
                        char out[LINE_BYTES])
{
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    const struct log log = {LOG_INFO, format, fileno(file)};
    log_event(&log, LOG_INFO, message, fields);
    ssize_t len = pread(log.fd, out, LINE_BYTES - 1, 0);
    cr_assert_gt(len, 0);
    out[len] = '\0';
    (void)fclose(file);
}

Test(log, a_line_stays_one_line_of_printable_text_in_each_format)
{
    static const char hostile[] = "x\x1b[2J\n2026 error you are hacked \xC2\x9B"
                                  "1m \xE2\x80\xAE";
    const struct log_field fields[] = {log_text("channel", hostile), {0}};
    static const enum log_format formats[] = {LOG_FORMAT_TEXT, LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON};
    for (size_t at = 0; at < sizeof formats / sizeof formats[0]; at++) {
        char line[LINE_BYTES];
        write_event(formats[at], hostile, fields, line);
        cr_expect_eq(strcspn(line, "\n"), strlen(line) - 1, "format %zu: %s", at, line);
        cr_expect_null(strpbrk(line, "\x1b\xC2\xE2"), "format %zu: %s", at, line);
        cr_expect_not_null(strstr(line, "u009b1m"), "format %zu: %s", at, line);
    }
}

Test(log, what_does_not_fit_is_cut_and_what_stands_behind_it_is_there)
{
    char longer[LONG + 1];
    char line[LINE_BYTES];
    memset(longer, '\x1b', LONG); /* six times as long when escaped */
    longer[LONG] = '\0';
    const struct log_field fields[] = {
        log_text("reason", longer), log_text("error", longer), log_number("again", 7), {0}};
    write_event(LOG_FORMAT_JSON, "channel is on hold", fields, line);
    cr_assert_leq(strlen(line), 4095);
    json_t *event = json_loads(line, 0, NULL);
    cr_assert_not_null(event, "%s", line);
    cr_expect_eq(json_integer_value(json_object_get(event, "again")), 7);
    cr_expect_gt(json_string_length(json_object_get(event, "reason")), 100);
    json_decref(event);
}

Test(log, a_field_that_finds_no_room_is_left_out_whole)
{
    char line[LINE_BYTES];
    struct log_field fields[202];
    for (size_t at = 0; at < 201; at++) {
        fields[at] = log_text("a_name_of_some_length", "and a value of some length");
    }
    fields[201] = (struct log_field){0};
    write_event(LOG_FORMAT_JSON, "many", fields, line);
    cr_assert_leq(strlen(line), 4095);
    json_t *event = json_loads(line, 0, NULL);
    cr_expect_not_null(event, "%s", line);
    json_decref(event);
}

Test(log, lines_of_one_kind_are_sixty_a_minute_and_the_rest_is_counted)
{
    struct log_quota quota = {0};
    int64_t left_out = 0;
    int shown = 0;
    for (int64_t now_ms = 1000; now_ms < 2000; now_ms++) {
        shown += log_may_tell(&quota, now_ms, &left_out);
        cr_assert_eq(left_out, 0);
    }
    cr_expect_eq(shown, 60);
    cr_expect(!log_may_tell(&quota, 60999, &left_out));
    cr_expect(log_may_tell(&quota, 61000, &left_out), "another minute");
    cr_expect_eq(left_out, 1001 - 60);
    cr_expect(log_may_tell(&quota, 61001, &left_out));
    cr_expect_eq(left_out, 0, "told once");
}
