#include "config/config_keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/printable.h"
#include "config/file_content.h"
#include "plugin/loader.h"

enum { SECRET_MAX_BYTES = 64 << 10, KEY_MAX_BYTES = 128 };

/* Keys and values are quoted, and in YAML they may hold line breaks and escapes; so may names of files. */
__attribute__((format(printf, 4, 0))) static void put_line(struct config *config, const char *place,
                                                           const char *word, const char *format, va_list args)
{
    char message[1024];
    (void)vsnprintf(message, sizeof message, format, args);
    text_add_printable(&config->faults, bytes_of(place));
    text_addf(&config->faults, ": %s", word);
    text_add_printable(&config->faults, bytes_of(message));
    text_add(&config->faults, "\n");
}

void config_fault(struct config *config, const char *place, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_line(config, place, "", format, args);
    va_end(args);
    config->fault_count++;
}

void config_warn(struct config *config, const char *place, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    put_line(config, place, "warning: ", format, args);
    va_end(args);
}

/* ---- finding keys ---- */

bool config_find(struct config *config, const char *key, struct option_set **set, int *index)
{
    *set = &config->core;
    *index = option_find(&config->core, key);
    for (size_t at = 0; at < config->section_count && *index < 0; at++) {
        size_t len = strlen(config->sections[at].section);
        if (strncmp(key, config->sections[at].section, len) == 0 && key[len] == '.') {
            *set = &config->sections[at];
            *index = option_find(*set, key + len + 1);
        }
    }
    return *index >= 0;
}

const struct option_set *config_section(const struct config *config, const char *name)
{
    for (size_t at = 0; at < config->section_count; at++) {
        if (strcmp(config->sections[at].section, name) == 0) {
            return &config->sections[at];
        }
    }
    return NULL;
}

/* Compares with every full key and every part of one in front of a dot. */
static void suggest(const struct option_set *set, const char *key, char *best, size_t *best_distance)
{
    for (size_t at = 0; at < set->count; at++) {
        char full[KEY_MAX_BYTES];
        (void)snprintf(full, sizeof full, "%s%s%s", set->section, set->section[0] ? "." : "",
                       set->table[at].name);
        for (;;) {
            size_t far = option_distance(key, full);
            if (far < *best_distance) {
                *best_distance = far;
                memcpy(best, full, sizeof full);
            }
            char *dot = strrchr(full, '.');
            if (!dot) {
                break;
            }
            *dot = '\0';
        }
    }
}

static bool nearest(const struct config *config, const char *key, char best[KEY_MAX_BYTES])
{
    size_t best_distance = strlen(key) / 3 + 1;
    size_t limit = best_distance;
    suggest(&config->core, key, best, &best_distance);
    for (size_t at = 0; at < config->section_count; at++) {
        suggest(&config->sections[at], key, best, &best_distance);
    }
    return best_distance < limit;
}

bool config_is_foreign(const struct config *config, const char *key)
{
    size_t len = strcspn(key, ".");
    if (!config->foreign || (config->foreign_name[0] && (strlen(config->foreign_name) != len ||
                                                         strncmp(config->foreign_name, key, len) != 0))) {
        return false;
    }
    for (size_t at = 0; at < config->core.count; at++) {
        const char *name = config->core.table[at].name;
        if (strncmp(name, key, len) == 0 && (name[len] == '.' || name[len] == '\0')) {
            return false;
        }
    }
    return true;
}

bool config_is_of_another_plugin(const struct config *config, const char *key)
{
    size_t len = strcspn(key, ".");
    for (size_t at = 0; at < config->section_count; at++) {
        const char *section = config->sections[at].section;
        if (strlen(section) == len && memcmp(section, key, len) == 0) {
            return false;
        }
    }
    char directory[LOADER_DIRECTORY_BYTES];
    char path[LOADER_DIRECTORY_BYTES + KEY_MAX_BYTES];
    (void)snprintf(path, sizeof path, "%s/%.*s.so", loader_directory(directory), (int)len, key);
    return access(path, F_OK) == 0;
}

void config_unknown(struct config *config, const char *place, const char *key)
{
    if (strchr(key, '.') && (config_is_foreign(config, key) || config_is_of_another_plugin(config, key))) {
        return;
    }
    char best[KEY_MAX_BYTES];
    if (nearest(config, key, best)) {
        config_fault(config, place, "unknown key '%s'; did you mean '%s'?", key, best);
    } else if (key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_.-")] != '\0') {
        config_fault(config, place, "unknown key, which is not shown: it may be a secret");
    } else {
        config_fault(config, place, "unknown key '%s'; 'outbox-relay config show' lists all keys", key);
    }
}

/* ---- setting values ---- */

/* Reads a secret's file, without the line break at its end; false and a fault if that fails. The name is not
 * quoted: who mistakes the option for the other gives the secret itself. */
static bool read_secret(struct config *config, struct file_content *content, const char *path,
                        const char *key, const char *place)
{
    int fault = file_content_read(content, path, SECRET_MAX_BYTES);
    bool text = fault == 0 && !memchr(content->bytes, '\0', content->len);
    while (text && content->len > 0 && strchr("\r\n", content->bytes[content->len - 1])) {
        content->bytes[--content->len] = '\0';
    }
    if (fault != 0 && fault != EFBIG) {
        config_fault(config, place, "%s: cannot read that file: %s", key, strerror(fault));
    } else if (!text) {
        config_fault(config, place, "%s: that file is no text of at most %d bytes", key, SECRET_MAX_BYTES);
    } else if (content->len == 0) {
        config_fault(config, place, "%s: that file is empty", key);
    } else {
        if (content->others_read || content->others_write) {
            config_warn(config, place, "%s: every user of this host can %s that file: chmod o= FILE", key,
                        content->others_write ? "write to" : "read");
        }
        return true;
    }
    file_content_finish(content);
    return false;
}

bool config_is_repeated(struct config *config, const struct option_set *set, int index,
                        enum option_origin origin, const char *place, const char *key)
{
    const struct option_value *value = &set->values[index];
    /* The command line is read from left to right, and the last one wins, as everywhere. */
    if (origin == OPTION_FLAG || !value->is_set || value->origin != origin) {
        return false;
    }
    config_fault(config, place, "key '%s' stands there twice (first at %s)", key, value->place);
    return true;
}

static void assign_from_file(struct config *config, struct option_set *set, int index, const char *path,
                             enum option_origin origin, const char *key, const char *place)
{
    struct err err = {0};
    struct file_content content;
    bool list = set->table[index].type == OUTBOX_OPT_LIST;
    bool map = set->table[index].type == OUTBOX_OPT_MAP;
    if (!read_secret(config, &content, path, key, place) || !content.bytes) {
        return;
    }
    for (char *at = content.bytes; list && (at = strpbrk(at, "\r\n")) != NULL;) {
        *at = ','; /* an entry on each line */
    }
    if ((map ? option_assign_lines : option_assign)(set, index, content.bytes, origin, place, &err) != 0) {
        config_fault(config, place, "%s: what that file holds is not valid here", key);
    }
    set->values[index].apart = true;
    file_content_finish(&content);
}

/* Who sets a secret to nothing meant to set it: a variable that was not expanded, a file that was not
 * mounted. Without it messages would go unsigned. */
int config_refuse_empty(const struct outbox_option *row, const char *value, struct err *err)
{
    bool secret = row->flags & OUTBOX_OPT_SECRET && row->type != OUTBOX_OPT_MAP;
    bool empty = value[strspn(value, row->type == OUTBOX_OPT_LIST ? ", \t\r\n" : " \t\r\n")] == '\0';
    return secret && empty
               ? err_set(err, ERR_CONFIG, "a secret that is set and empty: leave it out, or set it")
               : 0;
}

void config_assign(struct config *config, const char *key, const char *value, enum option_origin origin,
                   const char *place)
{
    struct option_set *set = NULL;
    int index = -1;
    struct err err = {0};
    if (config_find(config, key, &set, &index)) {
        if (!config_is_repeated(config, set, index, origin, place, key) &&
            (config_refuse_empty(&set->table[index], value, &err) != 0 ||
             option_assign(set, index, value, origin, place, &err) != 0)) {
            config_fault(config, place, "%s: %s", key, err.text);
        }
        return;
    }
    char base[KEY_MAX_BYTES];
    size_t len = strlen(key);
    if (len > 5 && len < sizeof base && strcmp(key + len - 5, "_file") == 0) {
        memcpy(base, key, len - 5);
        base[len - 5] = '\0';
        if (config_find(config, base, &set, &index) &&
            (set->table[index].flags & (OUTBOX_OPT_SECRET | OUTBOX_OPT_URL))) {
            if (!config_is_repeated(config, set, index, origin, place, base)) {
                assign_from_file(config, set, index, value, origin, key, place);
            }
            return;
        }
    }
    config_unknown(config, place, key);
}

/* OUTBOX_BATCH__MAX_MESSAGES -> batch.max_messages. */
void config_read_environment(struct config *config, const char *const *environment)
{
    static const char prefix[] = "OUTBOX_";
    for (; environment && *environment; environment++) {
        const char *equals = strchr(*environment, '=');
        size_t name_len = equals ? (size_t)(equals - *environment) : 0;
        char key[KEY_MAX_BYTES];
        char name[KEY_MAX_BYTES];
        size_t used = 0;
        if (!equals || strncmp(*environment, prefix, sizeof prefix - 1) != 0 || name_len >= sizeof name) {
            continue;
        }
        memcpy(name, *environment, name_len);
        name[name_len] = '\0';
        for (size_t at = sizeof prefix - 1; at < name_len; at++) {
            bool dot = name[at] == '_' && name[at + 1] == '_';
            key[used++] = dot ? '.' : (char)tolower((unsigned char)name[at]);
            at += dot;
        }
        key[used] = '\0';
        struct option_set *set = NULL;
        int index = -1;
        char best[KEY_MAX_BYTES];
        size_t file_twin = used > 5 && strcmp(key + used - 5, "_file") == 0 ? 5 : 0;
        /* Other programs' variables begin like ours, too (Kubernetes makes OUTBOX_RELAY_PORT): only near
         * misses are faults. */
        if (config_find(config, key, &set, &index) || file_twin || nearest(config, key, best)) {
            config_assign(config, key, equals + 1, OPTION_ENVIRONMENT, name);
        }
    }
}
