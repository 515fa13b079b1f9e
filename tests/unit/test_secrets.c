#include <criterion/criterion.h>
#include <string.h>

#include "base/secrets.h"

static void expect_copy(const char *said, const char *shown)
{
    char out[400];
    secrets_copy(out, sizeof out, bytes_of(said));
    cr_expect_str_eq(out, shown, "%s became %s", said, out);
}

Test(secrets, what_others_say_is_copied_without_them)
{
    secrets_add(bytes_of("hunter2"));
    secrets_add(bytes_of("hunter2 and more"));
    secrets_add(bytes_of("a\nb\x1b!"));
    expect_copy("nothing of it", "nothing of it");
    expect_copy("hunter2", "***");
    expect_copy("login with 'hunter2' (hunter2) failed", "login with '***' (***) failed");
    expect_copy("hunter2 and more", "***");
    expect_copy("hunter1", "hunter1");
    expect_copy("it was a\nb\x1b! \x1b[2J", "it was *** \\u001b[2J");
    secrets_clear();
    expect_copy("hunter2", "hunter2");
}

Test(secrets, the_beginning_of_one_at_the_end_of_a_text_is_one_that_somebody_cut)
{
    secrets_add(bytes_of("sk_live_0123456789"));
    expect_copy("you sent sk_live_0123456789", "you sent ***");
    expect_copy("you sent sk_live_012345678", "you sent ***");
    expect_copy("you sent sk_l", "you sent ***");
    expect_copy("you sent sk_", "you sent sk_");
    expect_copy("you sent sk_live_01 and more", "you sent sk_live_01 and more");
    secrets_clear();
}

Test(secrets, short_ones_are_left_alone)
{
    secrets_add(bytes_of("abc"));
    secrets_add(bytes_of(""));
    expect_copy("abc of it", "abc of it");
    secrets_clear();
}

Test(secrets, credentials_of_http_are_known_by_their_scheme)
{
    expect_copy("got Authorization: Bearer eyJhbGciOi.x-y_z~1+/== from you",
                "got Authorization: Bearer *** from you");
    expect_copy("{\"authorization\":\"basic dXNlcjpwYXNzd29yZA==\"}", "{\"authorization\":\"basic ***\"}");
    expect_copy("a bearer bond, basic needs", "a bearer bond, basic needs");
    expect_copy("Bearer ", "Bearer ");
}

Test(secrets, of_a_url_they_are_its_password_and_what_is_long_behind_its_host)
{
    secrets_add_url("amqp://guest:guest@h/");
    secrets_add_url("amqp://app:p%40ss%2Fword@h:5672/vhost");
    secrets_add_url(
        "https://hooks.example.com/services/T00000000/XXXXXXXXXXXXXXXX/${channel}?key=YYYYYYYYYYYYYYYY");
    expect_copy("user guest of h, vhost, services", "user guest of h, vhost, services");
    expect_copy("p%40ss%2Fword is p@ss/word", "*** is ***");
    expect_copy("POST /services/T00000000/XXXXXXXXXXXXXXXX/c?key=YYYYYYYYYYYYYYYY",
                "POST /services/T00000000/***/c?key=***");
    secrets_clear();
}

Test(secrets, urls_are_shown_without_what_may_be_one)
{
    static const struct {
        const char *url, *shown;
    } rows[] = {
        {"https://h/hook?to=a@b&token=S3cret", "https://***"},
        {"https://u:p@h/hook?token=S3@cret", "https://***"},
        {"https://h/hook?${key&token=S3cret", "https://h/hook?***"},
        {"S3cret=x://h", "***"},
        {"https://=token=S3cret", "https://***"},
        {"postgresql://app@h1:5432,[::1]:5433/shop", "postgresql://***@h1:5432,[::1]:5433/shop"},
        {"amqp://guest:s3cret@host:5672/v", "amqp://***@host:5672/v"},
        {"amqp://host/", "amqp://host/"},
        {"amqp://u:p@ss@host", "amqp://***@host"},
        {"amqp://app:S3c/ret@h1/", "amqp://***"},
        {"amqp://app:S3#c@r@h1/", "amqp://***"},
        {"amqp://app:S3", "amqp://***"},
        {"cret@h1/", "***@h1/"},
        {"hunter2", "***"},
        {"amqp://host:5672/v", "amqp://host:5672/v"},
        {"https://h/hooks/${channel}", "https://h/hooks/${channel}"},
        {"https://h/services/T0/B0/x${id}y", "https://h/services/***/***/***${id}***"},
        {"https://h/a/b?token=abc&c=${key}", "https://h/a/***?***${key}"},
        {"https://h?token=abc", "https://h?***"},
        {"https://h#abc", "https://h***"},
        {"https://api.example.org/bot123456-ABC-DEF1234ghIkl/send", "https://api.example.org/***/***"},
        {"https://api.example.org/bot123456:ABC-DEF1234ghIkl/send", "https://***"} /* may be a password */,
        {"https://h/${channel", "https://h/${channel"},
    };
    for (size_t at = 0; at < sizeof rows / sizeof rows[0]; at++) {
        struct text out;
        text_init(&out, 200);
        secrets_show_url(&out, rows[at].url);
        cr_expect_str_eq(text_get(&out), rows[at].shown, "%s became %s", rows[at].url, text_get(&out));
        text_finish(&out);
    }
}
