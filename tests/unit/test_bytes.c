#include <criterion/criterion.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* The first column: what CPython 3.11 (hash_info.algorithm siphash13) says with PYTHONHASHSEED=0; the last
 * row: the authors'. */
Test(bytes, a_hash_is_siphash_with_one_and_three_rounds)
{
    static const struct {
        uint64_t key[2];
        const char *text;
        uint64_t hash;
    } rows[] = {
        {{0, 0}, "a", UINT64_C(0x407448d2b89b1813)},
        {{0, 0}, "1234567", UINT64_C(0xa33d651594fdae81)},
        {{0, 0}, "12345678", UINT64_C(0x3489982430560a87)},
        {{0, 0}, "orders.created.v1", UINT64_C(0xa8f42407c3287b5c)},
        {{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}, "", UINT64_C(0xabac0158050fc4dc)}};
    for (size_t at = 0; at < sizeof rows / sizeof rows[0]; at++) {
        cr_expect_eq(bytes_hash_by(rows[at].key, bytes_of(rows[at].text)), rows[at].hash, "%s",
                     rows[at].text);
    }
}

/* Each child draws a key of its own. */
Test(bytes, each_process_hashes_by_a_key_of_its_own)
{
    uint64_t hashes[2] = {0};
    for (size_t at = 0; at < 2; at++) {
        int ends[2];
        cr_assert_eq(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            uint64_t hash = bytes_hash(bytes_of("orders"));
            _exit(write(ends[1], &hash, sizeof hash) == (ssize_t)sizeof hash ? 0 : 1);
        }
        cr_assert_gt(child, 0);
        cr_assert_eq(read(ends[0], &hashes[at], sizeof hashes[at]), (ssize_t)sizeof hashes[at]);
        int status = 0;
        cr_assert(waitpid(child, &status, 0) == child && status == 0);
        (void)close(ends[0]);
        (void)close(ends[1]);
    }
    cr_expect_neq(hashes[0], hashes[1]);
}

Test(bytes, quoted_array_elements_escape_quotes_and_backslashes)
{
    struct text out;
    text_init(&out, 100);
    text_add_quoted(&out, bytes_of("a\"b\\c,{}"));
    cr_expect_str_eq(text_get(&out), "\"a\\\"b\\\\c,{}\"");
    text_finish(&out);
}
