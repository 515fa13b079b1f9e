#include <criterion/criterion.h>
#include <string.h>

#include "command/argv.h"

Test(argv, what_may_be_secret_is_overwritten_in_the_processs_own_and_kept_in_the_copy)
{
    static const struct {
        const char *given;
        const char *left;
    } rows[] = {
        {"outbox-relay=1", "outbox-relay=1"}, /* the program's name */
        {"run", "run"},
        {"-c", "-c"},
        {"/etc/relay.yaml", "/etc/relay.yaml"},
        {"amqp.url=amqp://app:hunter2@host/", "amqp.url=***"},
        {"--database=postgresql://app:hunter2@host/x", "--database=***"},
        {"-dpostgresql://app:hunter2@host/x?sslmode=require", "-dpostgresql://***"},
        {"host=h password=hunter2", "host=***"},
        {"x=1", "x=*"},
        {"x=", "x="},
        {"amqp://", "amqp://"},
    };
    enum { ROWS = sizeof rows / sizeof rows[0] };
    char memory[ROWS][64];
    char *argv[ROWS + 1] = {0};
    struct err err = {0};
    for (size_t at = 0; at < ROWS; at++) {
        argv[at] = strcpy(memory[at], rows[at].given);
    }
    char **copy = argv_take(ROWS, argv, &err);
    cr_assert_not_null(copy);
    for (size_t at = 0; at < ROWS; at++) {
        size_t given = strlen(rows[at].given);
        cr_expect_str_eq(copy[at], rows[at].given);
        cr_expect_str_eq(memory[at], rows[at].left);
        for (size_t byte = strlen(memory[at]); byte < given; byte++) {
            cr_expect_eq(memory[at][byte], '\0', "%s: no trace of its length or end", rows[at].given);
        }
    }
    cr_expect_null(copy[ROWS]);
    argv_free(copy);
    argv_free(NULL);
}
