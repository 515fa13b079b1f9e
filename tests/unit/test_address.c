/* Where the kit's proxy finds host and port inside an option's value. */
#include <criterion/criterion.h>

#include "kit/kit_proxy.h"

TestSuite(kit_address);

Test(kit_address, host_and_port_are_found_in_urls_and_alone)
{
    static const struct {
        const char *value;
        const char *head;
        const char *host;
        const char *port;
        const char *tail;
    } cases[] = {
        {"127.0.0.1:6379", "", "127.0.0.1", "6379", ""},
        {"redis:6379/0", "", "redis", "6379", "/0"},
        {"[::1]:6379", "", "::1", "6379", ""},
        {"http://example.com/x:1", "http://", "example.com", "80", "/x:1"},
        {"https://example.com:8443?a=b@c", "https://", "example.com", "8443", "?a=b@c"},
        {"amqp://user:p@ss:w@host:5673/%2f", "amqp://user:p@ss:w@", "host", "5673", "/%2f"},
        {"amqps://guest:guest@[fe80::1]/", "amqps://guest:guest@", "fe80::1", "5671", "/"},
    };
    for (size_t at = 0; at < sizeof cases / sizeof cases[0]; at++) {
        struct kit_address address;
        cr_assert(kit_address_parse(&address, cases[at].value), "%s", cases[at].value);
        cr_expect_str_eq(address.head, cases[at].head);
        cr_expect_str_eq(address.host, cases[at].host);
        cr_expect_str_eq(address.port, cases[at].port);
        cr_expect_str_eq(address.tail, cases[at].tail);
    }
}

Test(kit_address, what_names_no_port_is_refused)
{
    static const char *const bad[] = {
        "", "host", "host:", ":1", "unknown://host/", "http:///path", "/run/socket", "[::1"};
    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        struct kit_address address;
        cr_expect(!kit_address_parse(&address, bad[at]), "%s", bad[at]);
    }
}
