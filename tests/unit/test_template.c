#include <criterion/criterion.h>

#include "message/template.h"

static const struct outbox_message message = {.kind = OUTBOX_COMMAND,
                                              .id = {"i-1", 3},
                                              .channel = {"orders", 6},
                                              .type = {"order.placed", 12},
                                              .key = {"k\0y", 3},
                                              .reply_to = {"answers", 7}};

static int render(const char *pattern, char *out, size_t out_bytes)
{
    return template_render(pattern, &message, out, out_bytes);
}

Test(template, fills_every_variable)
{
    char out[100];
    cr_expect_eq(render("a/${channel}/${type}-${kind}:${id}${reply_to}$", out, sizeof out), 41);
    cr_expect_str_eq(out, "a/orders/order.placed-command:i-1answers$");
}

Test(template, refuses_unknown_variables_open_braces_nul_bytes_and_what_does_not_fit)
{
    char out[8];
    cr_expect_eq(render("${chanel}", out, sizeof out), -1);
    cr_expect_eq(render("${channel", out, sizeof out), -1);
    cr_expect_eq(render("${key}", out, sizeof out), -1);
    cr_expect_eq(render("12345678", out, sizeof out), -1);
    cr_expect_eq(render("${channel}1", out, sizeof out), 7);
    cr_expect_eq(render("", out, sizeof out), 0);
}
