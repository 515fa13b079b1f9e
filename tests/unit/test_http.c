/* The pure parts of backend http: status codes, Retry-After, addresses, header fields, lanes, signatures. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "field.h"
#include "lanes.h"
#include "signature.h"
#include "status.h"
#include "url.h"

TestSuite(http);

static bool is_one_of(long code, const long *codes)
{
    while (*codes != 0 && *codes != code) {
        codes++;
    }
    return *codes != 0;
}

/* The table of the design, section 8, written down a second time. */
static enum outbox_verdict wanted_verdict(long code)
{
    static const long rejected[] = {400, 413, 415, 422, 431, 0};
    static const long held[] = {401, 402, 403, 404, 405, 406, 407, 408, 410,
                                411, 414, 425, 429, 451, 503, 504, 507, 0};
    if (code / 100 == 2) {
        return OUTBOX_CONFIRMED;
    }
    if (is_one_of(code, rejected)) {
        return OUTBOX_REJECTED;
    }
    return code / 100 == 1 || code / 100 == 3 || is_one_of(code, held) ? OUTBOX_HOLD : OUTBOX_RETRY;
}

Test(http, every_status_code_from_100_to_599_has_the_verdict_of_the_table)
{
    size_t counts[5] = {0};
    for (long code = 100; code <= 599; code++) {
        cr_expect_eq(status_verdict(code), wanted_verdict(code), "%ld", code);
        counts[status_verdict(code)]++;
    }
    cr_expect_eq(counts[OUTBOX_UNSETTLED], 0);
    cr_expect_eq(counts[OUTBOX_CONFIRMED], 100);
    cr_expect_eq(counts[OUTBOX_REJECTED], 5);
    cr_expect_eq(counts[OUTBOX_HOLD], 217);
}

Test(http, codes_that_do_not_exist_are_tried_again)
{
    static const long codes[] = {-1, 0, 99, 409, 418, 444, 499, 600, 999, 100000};
    for (size_t at = 0; at < sizeof codes / sizeof codes[0]; at++) {
        cr_expect_eq(status_verdict(codes[at]), OUTBOX_RETRY, "%ld", codes[at]);
    }
}

Test(http, retry_after_is_read_as_seconds_and_as_a_date_and_clamped)
{
    static const struct {
        const char *value;
        int64_t wanted_ms;
    } cases[] = {
        {"", 0},
        {"0", 1000},
        {"1", 1000},
        {"120", 120000},
        {"86400", 86400000},
        {"86401", 86400000},
        {"99999999999999999999999999", 86400000},
        {"-5", 0},
        {"1.5", 0},
        {"soon", 0},
        {"12:00", 0},
        {"Wed, 21 Oct 2015 07:28:30 GMT", 30000},
        {"Wed, 21 Oct 2015 07:27:00 GMT", 1000},
        {"Fri, 31 Dec 2999 23:59:59 GMT", 86400000},
        {"Wed, nonsense", 0},
    };
    const int64_t now_s = 1445412480; /* Wed, 21 Oct 2015 07:28:00 GMT */
    for (size_t at = 0; at < sizeof cases / sizeof cases[0]; at++) {
        cr_expect_eq(status_retry_after_ms(cases[at].value, now_s), cases[at].wanted_ms, "%s",
                     cases[at].value);
    }
}

static bool is_private(const char *text)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        address.ss_family = AF_INET;
    } else {
        cr_assert_eq(inet_pton(AF_INET6, text, &v6->sin6_addr), 1, "%s", text);
        address.ss_family = AF_INET6;
    }
    char shown[64];
    address_text((const struct sockaddr *)&address, shown, sizeof shown);
    cr_expect(strlen(shown) > 0);
    return address_is_private((const struct sockaddr *)&address);
}

Test(http, addresses_outside_the_public_internet_are_private)
{
    static const char *const private[] = {
        "0.0.0.0",
        "0.255.255.255",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.9",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b::7f00:1",
        "2002:a00:1::",
        "2002:7f00:1::1",
        "fe80::1",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
        "64:ff9b:1::1",
        "::169.254.169.254",
        "100::1",
        "fec0::1",
        "5f00::1",
    };
    static const char *const public[] = {
        "1.1.1.1",         "8.8.8.8",         "9.255.255.255",  "11.0.0.0",         "100.63.255.255",
        "100.128.0.0",     "126.255.255.255", "128.0.0.1",      "172.15.255.255",   "172.32.0.0",
        "192.167.255.255", "192.169.0.0",     "198.17.255.255", "198.20.0.0",       "223.255.255.255",
        "2606:4700::1111", "2a00:1450::1",    "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"};
    for (size_t at = 0; at < sizeof private / sizeof private[0]; at++) {
        cr_expect(is_private(private[at]), "%s", private[at]);
    }
    for (size_t at = 0; at < sizeof public / sizeof public[0]; at++) {
        cr_expect(!is_private(public[at]), "%s", public[at]);
    }
}

static struct outbox_bytes bytes(const char *text)
{
    return (struct outbox_bytes){text, strlen(text)};
}

Test(http, a_header_field_takes_no_line_break_and_no_odd_name)
{
    cr_expect(field_name_is_valid(bytes("X-Order_Id.2~")));
    cr_expect(!field_name_is_valid(bytes("")));
    cr_expect(!field_name_is_valid(bytes("a b")));
    cr_expect(!field_name_is_valid(bytes("a:b")));
    cr_expect(!field_name_is_valid(bytes("a\r\nb")));
    cr_expect(!field_name_is_valid((struct outbox_bytes){"a\0b", 3}));
    cr_expect(!field_name_is_valid(bytes("\xc3\xbc")));
    cr_expect(field_value_is_valid(bytes("a\tb \xc3\xbc")));
    for (int byte = 0; byte < 32; byte++) {
        char value[3] = {'a', (char)byte, 'b'};
        cr_expect_eq(field_value_is_valid((struct outbox_bytes){value, 3}), byte == '\t', "%d", byte);
    }
    cr_expect(!field_value_is_valid(bytes("\x7f")));
}

Test(http, what_belongs_to_connection_authentication_and_envelope_is_reserved_in_any_case_of_letters)
{
    static const char *const reserved[] = {"Host",
                                           "content-LENGTH",
                                           "Transfer-Encoding",
                                           "authorization",
                                           "Cookie",
                                           "webhook-id",
                                           "Webhook-Signature",
                                           "CE-id",
                                           "outbox-key",
                                           "X-Forwarded-For",
                                           "te",
                                           "outbox_channel",
                                           "Webhook_Signature",
                                           "x_forwarded_for",
                                           "CE_Id",
                                           "content_length",
                                           "Proxy",
                                           "Proxy_Authorization",
                                           "Range",
                                           "if_match",
                                           "X-HTTP-Method-Override",
                                           "x_http_method_override",
                                           "X-Original-URL",
                                           "X-Real-IP",
                                           "Remote_User",
                                           "X-Remote-Group",
                                           "X_Remote_User",
                                           "Impersonate-User",
                                           "X-Forwarded",
                                           "Client-IP",
                                           "X-Ms-Client-Principal",
                                           "X-Goog-Authenticated-User-Email",
                                           "X-Auth-Request-Email",
                                           "Cf-Access-Authenticated-User-Email",
                                           "CF-Connecting-IP",
                                           "X-Amzn-Oidc-Identity",
                                           "X-Envoy-External-Address",
                                           "WL-Proxy-Client-IP",
                                           "SSL-Client-Cert",
                                           "X-Client-Cert",
                                           "Tailscale-User-Login",
                                           "Sec-Fetch-Mode",
                                           "Via"};
    static const char *const free[] = {"traceparent", "x-request-id", "hosts",           "ten",
                                       "cello",       "webhook",      "content-language"};
    for (size_t at = 0; at < sizeof reserved / sizeof reserved[0]; at++) {
        cr_expect(field_is_reserved(bytes(reserved[at])), "%s", reserved[at]);
    }
    for (size_t at = 0; at < sizeof free / sizeof free[0]; at++) {
        cr_expect(!field_is_reserved(bytes(free[at])), "%s", free[at]);
    }
}

Test(http, cloudevents_values_are_percent_encoded_where_the_binding_says_so)
{
    char out[64];
    cr_expect_eq(field_encode(bytes("a b\"c%d\xe2\x82\xac~"), out, sizeof out), 23);
    cr_expect_str_eq(out, "a%20b%22c%25d%E2%82%AC~");
    cr_expect_eq(field_encode(bytes("aaaa"), out, 5), -1);
}

/* ---- URLs ---- */

/* Stands in for the host: ${channel} and ${key} alone. */
static int render(const struct outbox_host *host, const char *pattern, const struct outbox_message *message,
                  char *out, size_t out_bytes)
{
    (void)host;
    struct outbox_bytes value = strcmp(pattern, "${channel}") == 0 ? message->channel : message->key;
    cr_assert(strcmp(pattern, "${channel}") == 0 || strcmp(pattern, "${key}") == 0, "%s", pattern);
    return value.len < out_bytes ? snprintf(out, out_bytes, "%.*s", (int)value.len, value.ptr) : -1;
}

Test(http, what_a_message_brings_keeps_its_place_in_the_url)
{
    static const struct {
        const char *pattern;
        const char *channel;
        const char *key;
        const char *url; /* NULL = refused */
    } cases[] = {
        {"https://h:1/x/${channel}?k=${key}", "a/b", "1&2=3#4", "https://h:1/x/a%2Fb?k=1%262%3D3%234"},
        {"https://h/${channel}", "A-z_0.9~", "", "https://h/A-z_0.9~"},
        {"https://h/${channel}", "%2e%2e", "", "https://h/%252e%252e"},
        {"https://h/${channel}/x", "..", "", NULL},
        {"https://h/${channel}${key}", ".", ".", NULL},
        {"https://h/a?${channel}", "..", "", "https://h/a?.."},
        {"https://${channel}.example.com/", "a-1.b", "", "https://a-1.b.example.com/"},
        {"https://${channel}.example.com/", "evil.net/", "", NULL},
        {"https://${channel}.example.com/", "u@evil.net", "", NULL},
        {"https://${channel}.example.com/", "h:80", "", NULL},
        {"https://h${channel}", "?x", "", NULL},
        {"${channel}", "https://a.b/c?d=e", "", "https://a.b/c?d=e"},
        {"${channel}", "https://a.b/ c", "", NULL},
        {"${channel}/${key}", "https://a.b", "x/y", "https://a.b/x%2Fy"},
        {"https://h/${channel}", "\xc3\xbc\r\n", "", "https://h/%C3%BC%0D%0A"},
    };
    const struct outbox_host host = {.size = sizeof host, .render = render};
    for (size_t at = 0; at < sizeof cases / sizeof cases[0]; at++) {
        char url[256];
        const struct outbox_message message = {
            .size = sizeof message, .channel = bytes(cases[at].channel), .key = bytes(cases[at].key)};
        const char *fault = url_render(&host, cases[at].pattern, &message, url, sizeof url);
        cr_expect_eq(fault == NULL, cases[at].url != NULL, "%s %s: %s", cases[at].pattern, cases[at].channel,
                     fault ? fault : url);
        if (!fault && cases[at].url) {
            cr_expect_str_eq(url, cases[at].url);
        }
    }
}

Test(http, a_url_that_does_not_fit_is_refused_wherever_it_ends)
{
    const struct outbox_host host = {.size = sizeof host, .render = render};
    const struct outbox_message message = {
        .size = sizeof message, .channel = bytes("a/b"), .key = bytes("k")};
    char url[64];
    for (size_t size = 1; size <= strlen("http://h/a%2Fb/k"); size++) {
        cr_expect_not_null(url_render(&host, "http://h/${channel}/${key}", &message, url, size), "%zu", size);
    }
    cr_expect_null(url_render(&host, "http://h/${channel}/${key}", &message, url, sizeof "http://h/a%2Fb/k"));
}

/* ---- lanes ---- */

enum { MESSAGES = 6 };

static struct outbox_message messages[MESSAGES];
static const struct outbox_message *pointers[MESSAGES];
static struct outbox_batch batch = {.size = sizeof batch, .count = MESSAGES, .messages = pointers};

static void set_message(size_t at, const char *channel, const char *key)
{
    messages[at] =
        (struct outbox_message){.size = sizeof messages[at], .channel = bytes(channel), .key = bytes(key)};
    pointers[at] = &messages[at];
}

Test(http, messages_of_one_key_are_never_ready_together_and_others_are)
{
    struct lanes lanes;
    set_message(0, "a", "1");
    set_message(1, "a", "1");
    set_message(2, "b", "1"); /* another channel: another lane */
    set_message(3, "a", "");
    set_message(4, "a", ""); /* without a key they wait for nobody */
    set_message(5, "a", "1");
    cr_assert_eq(lanes_init(&lanes, &batch), 0);
    cr_expect_eq(lanes.channel_count, 2);
    cr_expect(lanes.channel[0] == lanes.channel[4] && lanes.channel[0] != lanes.channel[2]);
    static const size_t first[] = {0, 2, 3, 4};
    for (size_t at = 0; at < 4; at++) {
        cr_expect_eq(lanes_take(&lanes), first[at]);
    }
    cr_expect_eq(lanes_take(&lanes), LANES_NONE);
    lanes_done(&lanes, 3);
    cr_expect_eq(lanes_take(&lanes), LANES_NONE);
    lanes_done(&lanes, 0);
    cr_expect_eq(lanes_take(&lanes), 1);
    cr_expect_eq(lanes_take(&lanes), LANES_NONE);
    lanes_done(&lanes, 1);
    cr_expect_eq(lanes_take(&lanes), 5);
    lanes_finish(&lanes);
}

Test(http, an_empty_batch_has_no_lanes)
{
    struct lanes lanes;
    struct outbox_batch empty = {.size = sizeof empty};
    cr_assert_eq(lanes_init(&lanes, &empty), 0);
    cr_expect_eq(lanes_take(&lanes), LANES_NONE);
    lanes_finish(&lanes);
}

/* ---- signatures ---- */

Test(http, a_signature_is_the_one_of_the_standards_own_example)
{
    struct signing_key key;
    char out[SIGNATURE_BYTES];
    cr_assert_eq(signing_key_read(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 0);
    cr_assert_eq(signature_make(out, &key, 1, bytes("msg_p5jXN8AQM9LWM0D4loKWxJek"), 1614265330,
                                bytes("{\"test\": 2432232314}")),
                 0);
    cr_expect_str_eq(out, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

Test(http, keys_of_24_to_64_bytes_are_taken_and_no_others)
{
    static const char *const bad[] = {"",
                                      "whsec_",
                                      "whsec_abc",
                                      "whsec_!!!!MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                                      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La",
                                      "whsec_====",
                                      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa=w"};
    struct signing_key key;
    for (size_t at = 0; at < sizeof bad / sizeof bad[0]; at++) {
        cr_expect_eq(signing_key_read(&key, bad[at]), -1, "%s", bad[at]);
    }
    char longest[96] = "";
    memset(longest, 'A', 88);
    longest[86] = longest[87] = '=';
    cr_expect_eq(signing_key_read(&key, longest), 0); /* 64 bytes */
    cr_expect_eq(key.len, 64);
    longest[86] = 'A';
    cr_expect_eq(signing_key_read(&key, longest), -1); /* 65 */
}
