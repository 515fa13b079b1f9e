/*
 * fuzz_urls - what a message brings, filled into templates of URLs: it keeps its place. libcurl, which will
 * follow the URL, reads the host, path and query that the template says, and nothing that ends a line.
 *
 * First byte: which template; the rest, cut at NUL bytes: channel, key, type.
 */
#include <curl/curl.h>
#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "url.h"

enum { OUT_BYTES = 8192 };

static const struct {
    const char *pattern;
    const char *host; /* NULL = the message's */
    const char *path; /* what the path begins with */
} templates[] = {{"https://hooks.example:8443/in/${channel}?k=${key}", "hooks.example", "/in/"},
                 {"http://h/${channel}/${key}/x", "h", "/"},
                 {"https://h/a/b#${type}", "h", "/a/b"},
                 {"https://${channel}.example.com/${key}", NULL, "/"},
                 {"https://h${key}", NULL, "/"},
                 {"https://h?${key}", "h", "/"},
                 {"https://user:pass@h/${type}${channel}${key}", "h", "/"}};

/* Stands in for the host's. */
static int render(const struct outbox_host *host, const char *pattern, const struct outbox_message *message,
                  char *out, size_t out_bytes)
{
    (void)host;
    struct outbox_bytes value = strcmp(pattern, "${channel}") == 0 ? message->channel
                                : strcmp(pattern, "${key}") == 0   ? message->key
                                                                   : message->type;
    if (value.len >= out_bytes || memchr(value.ptr, '\0', value.len)) {
        return -1;
    }
    memcpy(out, value.ptr, value.len);
    out[value.len] = '\0';
    return (int)value.len;
}

static struct outbox_bytes take(const uint8_t **data, size_t *left)
{
    const uint8_t *end = memchr(*data, '\0', *left);
    struct outbox_bytes piece = {(const char *)*data, end ? (size_t)(end - *data) : *left};
    size_t used = piece.len + (end != NULL);
    *data += used;
    *left -= used;
    return piece;
}

static bool has_dots(const char *path)
{
    for (const char *at = path; at; at = strchr(at, '/')) {
        at += *at == '/';
        size_t len = strcspn(at, "/");
        if ((len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.')) {
            return true;
        }
    }
    return false;
}

static void check_parts(const char *url, size_t which)
{
    CURLU *parsed = curl_url();
    char *host = NULL;
    char *path = NULL;
    char *user = NULL;
    PROMISE(parsed, "memory");
    if (curl_url_set(parsed, CURLUPART_URL, url, CURLU_PATH_AS_IS) == CURLUE_OK) {
        PROMISE(curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK, "it has a host");
        PROMISE(curl_url_get(parsed, CURLUPART_PATH, &path, 0) == CURLUE_OK, "it has a path");
        (void)curl_url_get(parsed, CURLUPART_USER, &user, 0);
        PROMISE(!templates[which].host || strcmp(host, templates[which].host) == 0,
                "the host is the template's");
        PROMISE(!templates[which].host ||
                    strncmp(path, templates[which].path, strlen(templates[which].path)) == 0,
                "so is what the path begins with");
        PROMISE(!has_dots(path), "nobody climbs");
        PROMISE(!user || strcmp(user, "user") == 0, "no message brings a user");
    } else {
        PROMISE(!templates[which].host, "only a host of a message's may be none");
    }
    curl_free(host);
    curl_free(path);
    curl_free(user);
    curl_url_cleanup(parsed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct outbox_host host = {.size = sizeof host, .render = render};
    static const char *const one[] = {"hooks.example", "*.example.com", "h"};
    struct outbox_message message = {.size = sizeof message};
    char url[OUT_BYTES];
    char hidden[OUT_BYTES];
    size_t which = bytes > 0 ? data[0] % (sizeof templates / sizeof templates[0]) : 0;
    if (bytes == 0) {
        return 0;
    }
    data++;
    bytes--;
    message.channel = take(&data, &bytes);
    message.key = take(&data, &bytes);
    message.type = take(&data, &bytes);
    const char *fault = url_render(&host, templates[which].pattern, &message, url, sizeof url);
    PROMISE(memchr(url, '\0', sizeof url), "it ends");
    if (fault) {
        PROMISE(fault[0], "who refuses says why");
        return 0;
    }
    for (const char *at = url; *at; at++) {
        PROMISE((unsigned char)*at > 0x20 && *at != 0x7f, "nothing that ends a line, or a word");
    }
    check_parts(url, which);
    PROMISE(url_is_listed(url, one, 3) >= 0, "memory");
    url_hide(templates[which].pattern, hidden, sizeof hidden);
    PROMISE(strlen(hidden) <= strlen(templates[which].pattern) + 16, "what is shown ends");
    return 0;
}
