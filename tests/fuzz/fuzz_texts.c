/*
 * fuzz_texts - what plugins, brokers and receivers say, on its way into logs and rows: one line, UTF-8, shown
 * and not acted on, without a secret. A second reading of the bytes judges.
 *
 * The first byte: which secret is known; the rest is the text, with the secret in place of each byte 0x01.
 */
#define _GNU_SOURCE /* memfd_create, memmem */
#include <jansson.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/printable.h"
#include "base/secrets.h"
#include "fuzz.h"

enum { TEXT_BYTES = 4096, LINE_BYTES = 4097 };

static const char *const secrets[] = {"sEcReT7Zq9Xw", "abcd", "p@ss word",
                                      "\xc3\xbc\xc3\xb6\xc3\xa4\xc3\x9f"};

static size_t fill(char *text, const uint8_t *data, size_t bytes, const char *secret)
{
    size_t used = 0;
    for (size_t at = 0; at < bytes; at++) {
        size_t len = data[at] == 1 ? strlen(secret) : 1;
        if (used + len > TEXT_BYTES) {
            break;
        }
        memcpy(text + used, data[at] == 1 ? secret : (const char *)data + at, len);
        used += len;
    }
    return used;
}

static void check_shown(const char *text, const char *what)
{
    json_t *valid = json_string(text); /* NULL if it is not UTF-8 */
    PROMISE(valid, "valid UTF-8");
    json_decref(valid);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        PROMISE(*at >= 0x20 && *at != 0x7f, what);
        PROMISE(!(at[0] == 0xC2 && at[1] >= 0x80 && at[1] <= 0x9F), "no C1");
        PROMISE(!(at[0] == 0xE2 && at[1] == 0x80 && at[2] >= 0xA8 && at[2] <= 0xAE),
                "no separators, no turns");
    }
}

static void check_line(enum log_format format, const char *message, const char *field)
{
    static int fd = -1;
    char line[LINE_BYTES] = "";
    fd = fd < 0 ? memfd_create("log", 0) : fd;
    PROMISE(fd >= 0 && ftruncate(fd, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0, "a memfd");
    const struct log log = {LOG_DEBUG, format, fd};
    LOG(&log, LOG_INFO, message, log_text("reason", field), log_number("n", 7));
    ssize_t len = pread(fd, line, sizeof line - 1, 0);
    PROMISE(len > 0 && line[len - 1] == '\n', "a whole line");
    line[len - 1] = '\0';
    check_shown(line, "one line of text");
    if (format == LOG_FORMAT_JSON) {
        json_t *event = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        PROMISE(event && json_integer_value(json_object_get(event, "n")) == 7,
                "an object with what stood behind the text");
        json_decref(event);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char text[TEXT_BYTES + 1];
    char clean[600];
    if (bytes == 0) {
        return 0;
    }
    const char *secret = secrets[data[0] % (sizeof secrets / sizeof secrets[0])];
    size_t len = fill(text, data + 1, bytes - 1, secret);
    secrets_clear();
    secrets_add((struct bytes){secret, strlen(secret)});
    secrets_copy(clean, sizeof clean, (struct bytes){text, len});
    check_shown(clean, "what is copied is shown");
    PROMISE(!strstr(clean, secret), "no secret comes through");
    printable_copy(clean, sizeof clean, (struct bytes){text, len});
    check_shown(clean, "what is copied is shown");
    text[len] = '\0';
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        check_line((enum log_format)format, text, "a field");
        check_line((enum log_format)format, "an event", text);
    }
    return 0;
}
