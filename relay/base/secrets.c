#include "base/secrets.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/printable.h"

enum {
    MAX_SECRETS = 512,
    MIN_BYTES = 4,
    TOKEN_MIN_BYTES = 8,    /* of what follows "Bearer " */
    SEGMENT_MIN_BYTES = 12, /* of a piece of a path or query: shorter ones are words */
    TOKEN_LIKE_BYTES = 20   /* even as the first segment of a path */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct secret {
    char *ptr;
    size_t len;
} secrets[MAX_SECRETS]; /* longest first; under the lock */
static size_t count;

static const char token_letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=._~-";

static bool is_known(struct bytes secret)
{
    for (size_t at = 0; at < count; at++) {
        if (bytes_equal((struct bytes){secrets[at].ptr, secrets[at].len}, secret)) {
            return true;
        }
    }
    return false;
}

void secrets_add(struct bytes secret)
{
    if (secret.len < MIN_BYTES) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    char *copy = count < MAX_SECRETS && !is_known(secret) ? malloc(secret.len) : NULL;
    if (copy) {
        size_t place = count++;
        memcpy(copy, secret.ptr, secret.len);
        for (; place > 0 && secrets[place - 1].len < secret.len; place--) {
            secrets[place] = secrets[place - 1];
        }
        secrets[place] = (struct secret){copy, secret.len};
    }
    (void)pthread_mutex_unlock(&lock);
}

void secrets_clear(void)
{
    (void)pthread_mutex_lock(&lock);
    while (count > 0) {
        struct secret *last = &secrets[--count];
        explicit_bzero(last->ptr, last->len);
        free(last->ptr);
    }
    (void)pthread_mutex_unlock(&lock);
}

/* ---- URLs ---- */

static int hex_digit(char letter)
{
    return letter >= '0' && letter <= '9'   ? letter - '0'
           : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10
           : letter >= 'A' && letter <= 'F' ? letter - 'A' + 10
                                            : -1;
}

/* RFC 3986, section 2.1. */
static void add_decoded(struct bytes encoded)
{
    char *decoded = memchr(encoded.ptr, '%', encoded.len) ? malloc(encoded.len) : NULL;
    size_t len = 0;
    for (size_t at = 0; decoded && at < encoded.len; at++) {
        bool triple = encoded.ptr[at] == '%' && at + 2 < encoded.len && hex_digit(encoded.ptr[at + 1]) >= 0 &&
                      hex_digit(encoded.ptr[at + 2]) >= 0;
        decoded[len++] = triple ? (char)(hex_digit(encoded.ptr[at + 1]) * 16 + hex_digit(encoded.ptr[at + 2]))
                                : encoded.ptr[at];
        at += triple ? 2 : 0;
    }
    if (decoded) {
        secrets_add((struct bytes){decoded, len});
        explicit_bzero(decoded, encoded.len);
        free(decoded);
    }
}

static void add_password(const char *userinfo, size_t len)
{
    const char *colon = memchr(userinfo, ':', len);
    if (!colon) {
        return;
    }
    const struct bytes user = {userinfo, (size_t)(colon - userinfo)};
    const struct bytes password = {colon + 1, len - user.len - 1};
    if (!bytes_equal(user, password)) {
        secrets_add(password);
        add_decoded(password);
    }
}

/* Pieces between the marks that divide a path and a query; a template's variable is none. */
static void add_pieces(const char *at)
{
    for (at += strspn(at, "/?&=#"); *at; at += strspn(at, "/?&=#")) {
        size_t len = strcspn(at, "/?&=#");
        const char *variable = strstr(at, "${");
        if (len >= SEGMENT_MIN_BYTES && (!variable || variable >= at + len)) {
            secrets_add((struct bytes){at, len});
        }
        at += len;
    }
}

void secrets_add_url(const char *url)
{
    const char *authority = strstr(url, "://");
    if (!authority) {
        return;
    }
    const char *rest = authority + 3;
    const char *at_sign = strrchr(rest, '@'); /* a password may hold what somebody forgot to encode */
    if (at_sign) {
        add_password(rest, (size_t)(at_sign - rest));
        rest = at_sign + 1;
    }
    add_pieces(rest + strcspn(rest, "/?#"));
}

/* Where the scheme ends; 0 if there is none. */
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

static size_t scheme_length(const char *url)
{
    static const char letters[] = LETTERS "+-.";
    size_t len = strspn(url, letters); /* RFC 3986, 3.1: what else stands in front of "://" may be anything */
    return len > 0 && strncmp(url + len, "://", 3) == 0 ? len + 3 : 0;
}

/* Of lists of hosts and ports, of addresses and of templates. */
static const char host_letters[] = LETTERS "-._~:,[]%${}";

/* Up to the end of the authority, and what is left. Passwords may hold '/', '#' and '@' that somebody forgot
 * to encode, and a list cuts them at commas: everything up to the last '@' goes, and without one what does
 * not end in a port; all, where that '@' may stand in a path or query. */
static const char *show_authority(struct text *out, const char *url)
{
    size_t scheme = scheme_length(url);
    const char *rest = url + scheme;
    const char *at_sign = strrchr(rest, '@');
    const char *colon = strchr(rest, ':');
    bool port = !colon || strspn(colon + 1, "0123456789") == strcspn(colon + 1, "/?#");
    text_add_bytes(out, (struct bytes){url, scheme});
    bool behind =
        at_sign && strcspn(rest, "/?#") < (size_t)(at_sign - rest); /* of a password, or of a query */
    if (behind || (!at_sign && (scheme == 0 || !port))) {
        text_add(out, "***");
        return "";
    }
    if (at_sign) {
        text_add(out, "***");
        rest = at_sign;
    }
    size_t len = strcspn(rest, "/?#");
    size_t sign = at_sign ? 1 : 0;
    if (sign + strspn(rest + sign, host_letters) < len) {
        text_add(out, "***"); /* no host has such a name */
        return "";
    }
    text_add_bytes(out, (struct bytes){rest, len});
    return rest + len;
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

void secrets_show_url(struct text *out, const char *url)
{
    const char *at = show_authority(out, url);
    size_t first = *at == '/' ? 1 + strcspn(at + 1, "/?#") : 0;
    bool token = literal_length(at, first) > TOKEN_LIKE_BYTES;
    text_add_bytes(out, (struct bytes){at, token ? 1 : first});
    text_add(out, token ? "***" : "");
    for (at += first; *at;) {
        size_t variable = variable_length(at);
        size_t kept = variable > 0 ? variable : *at == '/' || *at == '?';
        if (kept > 0) {
            text_add_bytes(out, (struct bytes){at, kept});
            at += kept;
            continue;
        }
        text_add(out, "***");
        do {
            at++;
        } while (*at && *at != '/' && *at != '?' && strncmp(at, "${", 2) != 0);
    }
}

/* ---- what others say ---- */

/* How much at `at` is a secret, or the beginning of one at the text's end, which somebody may have cut; 0 if
 * none begins there. */
static size_t secret_at(struct bytes text, size_t at)
{
    size_t left = text.len - at;
    for (size_t one = 0; one < count && left >= MIN_BYTES; one++) {
        size_t len = secrets[one].len < left ? secrets[one].len : left;
        if (memcmp(text.ptr + at, secrets[one].ptr, len) == 0) {
            return len;
        }
    }
    return 0;
}

/* The length of "Bearer " or "Basic " at `at` where a token follows; else 0. */
static size_t scheme_at(struct bytes text, size_t at, size_t *token)
{
    static const char *const schemes[] = {"Bearer ", "Basic "};
    for (size_t one = 0; one < sizeof schemes / sizeof schemes[0]; one++) {
        size_t len = strlen(schemes[one]);
        size_t end = at + len;
        if (end < text.len && strncasecmp(text.ptr + at, schemes[one], len) == 0) {
            while (end < text.len && text.ptr[end] != '\0' && strchr(token_letters, text.ptr[end])) {
                end++;
            }
            *token = end - at - len;
            return *token >= TOKEN_MIN_BYTES ? len : 0;
        }
    }
    return 0;
}

static void mask(struct text *masked, struct bytes text)
{
    size_t plain = 0; /* where begins what is not copied yet */
    for (size_t at = 0; at < text.len;) {
        size_t token = 0;
        size_t scheme = scheme_at(text, at, &token);
        size_t secret = scheme > 0 ? token : secret_at(text, at);
        if (secret == 0) {
            at++;
            continue;
        }
        text_add_bytes(masked, (struct bytes){text.ptr + plain, at + scheme - plain});
        text_add(masked, "***");
        at += scheme + secret;
        plain = at;
    }
    text_add_bytes(masked, (struct bytes){text.ptr + plain, text.len - plain});
}

void secrets_copy(char *out, size_t out_bytes, struct bytes from)
{
    struct text masked;
    text_init(&masked, SIZE_MAX - 1);
    (void)pthread_mutex_lock(&lock);
    mask(&masked, from);
    (void)pthread_mutex_unlock(&lock);
    printable_copy(out, out_bytes, masked.overflow ? bytes_of("(out of memory)") : text_view(&masked));
    text_finish(&masked);
}
