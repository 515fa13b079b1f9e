#define _GNU_SOURCE /* FNM_CASEFOLD */
#include "url.h"

#include <curl/curl.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { VALUE_BYTES = 1024, TOKEN_LIKE_BYTES = 20, HOST_BYTES = 1024 };

enum place { SCHEME, AUTHORITY, BEHIND };

/* Where in the URL its next byte stands. */
static enum place place_of(const char *url)
{
    const char *authority = strstr(url, "://");
    return !authority ? SCHEME : strpbrk(authority + 3, "/?#") ? BEHIND : AUTHORITY;
}

static bool is_plain(char byte, const char *more)
{
    bool letter =
        (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9');
    return letter || (byte != '\0' && strchr(more, byte));
}

static const char *add_to_authority(const char *value, char *out, size_t out_bytes)
{
    for (const char *at = value; *at; at++) {
        if (!is_plain(*at, ".-")) {
            return "a host name made of this message would hold more than letters, digits, '.' and '-'";
        }
    }
    return snprintf(out, out_bytes, "%s", value) < (int)out_bytes ? NULL
                                                                  : "the URL of this message is too long";
}

static const char *add_encoded(const char *value, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (const char *at = value; *at; at++) {
        int len = snprintf(out + used, out_bytes - used, is_plain(*at, "-._~") ? "%c" : "%%%02X",
                           (unsigned char)*at);
        if (len >= (int)(out_bytes - used)) {
            return "the URL of this message is too long";
        }
        used += (size_t)len;
    }
    return NULL;
}

static const char *add_raw(const char *value, char *out, size_t out_bytes)
{
    for (const char *at = value; *at; at++) {
        if ((unsigned char)*at <= 0x20 || *at == 0x7f) {
            return "a space or control character came from this message";
        }
    }
    return snprintf(out, out_bytes, "%s", value) < (int)out_bytes ? NULL
                                                                  : "the URL of this message is too long";
}

/* "." and ".." would climb. */
static bool has_dot_segment(const char *url)
{
    const char *authority = strstr(url, "://");
    const char *at = authority ? authority + 3 + strcspn(authority + 3, "/?#") : "";
    while (*at == '/') {
        size_t len = strcspn(++at, "/?#");
        if ((len == 1 && at[0] == '.') || (len == 2 && at[0] == '.' && at[1] == '.')) {
            return true;
        }
        at += len;
    }
    return false;
}

/* One ${variable}; *pattern moves behind it. */
static const char *add_variable(const struct outbox_host *host, const char **pattern,
                                const struct outbox_message *message, enum place place, char *out,
                                size_t out_bytes)
{
    char name[64];
    char value[VALUE_BYTES];
    size_t len = strcspn(*pattern, "}") + 1;
    (void)snprintf(name, sizeof name, "%.*s", (int)len, *pattern);
    *pattern += len;
    if (len >= sizeof name || host->render(host, name, message, value, sizeof value) < 0) {
        return "a variable is unknown, or what this message has for it is too long or holds a NUL byte";
    }
    return place == SCHEME      ? add_raw(value, out, out_bytes)
           : place == AUTHORITY ? add_to_authority(value, out, out_bytes)
                                : add_encoded(value, out, out_bytes);
}

const char *url_render(const struct outbox_host *host, const char *pattern,
                       const struct outbox_message *message, char *out, size_t out_bytes)
{
    const char *fault = NULL;
    bool whole = strncmp(pattern, "${", 2) == 0; /* the message brings the URL, dots and all */
    size_t used = 0;
    out[0] = '\0';
    while (*pattern && !fault) {
        if (strncmp(pattern, "${", 2) == 0) {
            fault = add_variable(host, &pattern, message, place_of(out), out + used, out_bytes - used);
            used += strlen(out + used);
        } else if (used + 2 > out_bytes) {
            fault = "the URL of this message is too long";
        } else {
            out[used++] = *pattern++;
            out[used] = '\0';
        }
    }
    if (!fault && !whole && has_dot_segment(out)) {
        fault = "a path segment '.' or '..' came out";
    }
    return fault;
}

/* By itself, or with its port behind it. */
static int is_listed(char *host, const char *port, const char *const *hosts, size_t count)
{
    char with_port[HOST_BYTES];
    host += host[0] == '[';
    size_t len = strcspn(host, "]");
    host[len - (len > 1 && host[len - 1] == '.')] = '\0'; /* the root, which may be named or not */
    int used = snprintf(with_port, sizeof with_port, "%s:%s", host, port);
    for (size_t at = 0; at < count && used < (int)sizeof with_port; at++) {
        if (fnmatch(hosts[at], host, FNM_CASEFOLD) == 0 || fnmatch(hosts[at], with_port, FNM_CASEFOLD) == 0) {
            return 1;
        }
    }
    return 0;
}

int url_is_listed(const char *url, const char *const *hosts, size_t count)
{
    CURLU *parsed = curl_url();
    char *host = NULL;
    char *port = NULL;
    CURLUcode result = parsed ? curl_url_set(parsed, CURLUPART_URL, url, 0) : CURLUE_OUT_OF_MEMORY;
    result = result ? result : curl_url_get(parsed, CURLUPART_HOST, &host, 0);
    result = result ? result : curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT);
    int listed = result == CURLUE_OK              ? is_listed(host, port, hosts, count)
                 : result == CURLUE_OUT_OF_MEMORY ? -1
                                                  : 0;
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parsed);
    return listed;
}

static size_t append(char *out, size_t used, size_t out_bytes, const char *piece, size_t len)
{
    size_t room = out_bytes - 1 - used;
    len = len < room ? len : room;
    memcpy(out + used, piece, len);
    out[used + len] = '\0';
    return used + len;
}

/* Of a variable of a template at `at`, "${name}"; 0 if there is none. */
static size_t variable_length(const char *at)
{
    size_t len = strncmp(at, "${", 2) == 0 ? 2 + strspn(at + 2, "abcdefghijklmnopqrstuvwxyz_") : 0;
    return len > 2 && at[len] == '}' ? len + 1 : 0;
}

/* How much of it is no variable. */
static size_t literal_length(const char *text, size_t len)
{
    size_t literal = 0;
    for (size_t at = 0; at < len;) {
        size_t variable = variable_length(text + at);
        literal += variable == 0;
        at += variable > 0 ? variable : 1;
    }
    return literal;
}

void url_hide(const char *pattern, char *out, size_t out_bytes)
{
    const char *authority = strstr(pattern, "://");
    const char *at = authority ? authority + 3 : pattern;
    at += strcspn(at, "/?#");
    size_t first = *at == '/' ? 1 + strcspn(at + 1, "/?#") : 0;
    bool token = literal_length(at, first) > TOKEN_LIKE_BYTES;
    size_t used = append(out, 0, out_bytes, pattern, (size_t)(at - pattern) + (token ? 1 : first));
    used = token ? append(out, used, out_bytes, "***", 3) : used;
    for (at += first; *at;) {
        size_t variable = variable_length(at);
        size_t kept = variable > 0 ? variable : *at == '/' || *at == '?';
        if (kept > 0) {
            used = append(out, used, out_bytes, at, kept);
            at += kept;
            continue;
        }
        used = append(out, used, out_bytes, "***", 3);
        do {
            at++;
        } while (*at && *at != '/' && *at != '?' && strncmp(at, "${", 2) != 0);
    }
}
