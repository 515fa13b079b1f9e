#include "store/ledger.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/printable.h"
#include "base/version.h"
#include "postgres/pg.h"
#include "store/inspect.h"
#include "store/limits.h"
#include "store/sql.h"

enum {
    EVERY_MS = 10000,
    HOLDS_EVERY_MS = 1000,
    RECONNECT_EVERY_MS = 5000,
    CONNECT_MS = 5000,
    ANSWER_MS = 3000,
    LOOK_AGAIN_MS = 60000,
    MAX_BYTES = 256 << 10
};

struct ledger {
    struct ledger_options options;
    struct pg *pg;
    struct text written; /* what the row says, to see a change */
    uint64_t held;       /* likewise */
    int64_t write_at_ms;
    int64_t connect_at_ms;
    int64_t look_at_ms;
    uint64_t strangers; /* hash of what was told of them */
    bool has_written;
    bool warned; /* of another with our name */
    char host[256];
    char pid[16];
};

int ledger_new(struct ledger **out, const struct ledger_options *options, struct err *err)
{
    struct ledger *ledger = calloc(1, sizeof *ledger);
    if (!ledger) {
        return err_set(err, ERR_INTERNAL, "out of memory");
    }
    ledger->options = *options;
    text_init(&ledger->written, MAX_BYTES);
    if (gethostname(ledger->host, sizeof ledger->host - 1) != 0) {
        (void)snprintf(ledger->host, sizeof ledger->host, "unknown");
    }
    (void)snprintf(ledger->pid, sizeof ledger->pid, "%ld", (long)getpid());
    *out = ledger;
    return 0;
}

static bool connect_if_due(struct ledger *ledger)
{
    if (ledger->pg || clock_now_ms() < ledger->connect_at_ms) {
        return ledger->pg != NULL;
    }
    ledger->connect_at_ms = clock_now_ms() + RECONNECT_EVERY_MS;
    const struct pg_options options = {ledger->options.conninfo, ledger->options.client_name,
                                       ledger->options.stop_fd};
    struct err err = {0};
    if (limits_open(&ledger->pg, &options, NULL, clock_now_ms() + CONNECT_MS, &err) != 0) {
        /* The workers tell what is wrong with the database; once is enough. */
        LOG(ledger->options.log, LOG_DEBUG, "cannot write to outbox.relay", log_text("error", err.text));
        return false;
    }
    pg_cancel_on(ledger->pg, -1);
    return true;
}

/* Two of one name write over each other: then neither can be told from the other in `status`. What the first
 * write finds may be our own life before this one. */
static void warn_of_namesake(struct ledger *ledger, const struct pg_rows *rows)
{
    bool found = pg_rows_count(rows) > 0;
    if (found && !ledger->warned) {
        LOG(ledger->options.log, LOG_WARNING,
            ledger->has_written ? "another relay runs under the same name: give each its own --instance"
                                : "a relay of the same name was here less than 30 s ago: if it still runs, "
                                  "give each its own --instance",
            log_text("instance", ledger->options.instance), log_text("host", pg_text(rows, 0, 0)),
            log_number("pid", pg_number(rows, 0, 1, 0)));
    }
    ledger->warned = ledger->warned || (found && ledger->has_written);
    ledger->has_written = true;
}

/* Another connection, another time. */
static void give_up(struct ledger *ledger, const struct err *err)
{
    LOG(ledger->options.log, err->class == ERR_CONNECTION ? LOG_DEBUG : LOG_WARNING,
        "cannot write to outbox.relay", log_text("error", err->text));
    pg_close(ledger->pg);
    ledger->pg = NULL;
    text_clear(&ledger->written);
}

static void run(struct ledger *ledger, const char *sql, size_t count, const char *const *values)
{
    struct err err = {0};
    struct pg_rows *rows = NULL;
    if (limits_query(ledger->pg, sql, count, values, &rows, clock_now_ms() + ANSWER_MS, &err) != 0) {
        give_up(ledger, &err);
        return;
    }
    warn_of_namesake(ledger, rows);
    pg_rows_free(rows);
}

static bool has_changed(struct ledger *ledger, const struct ledger_entry *entry)
{
    struct text now;
    text_init(&now, MAX_BYTES);
    /* Without the times: they change by themselves. */
    text_addf(&now, "%s\n%s\n%s", entry->state, entry->reason ? entry->reason : "",
              entry->last_error ? entry->last_error : "");
    bool changed = strcmp(text_get(&now), text_get(&ledger->written)) != 0;
    text_finish(&ledger->written);
    ledger->written = now;
    return changed;
}

bool ledger_is_connected(const struct ledger *ledger)
{
    return ledger->pg != NULL && ledger->has_written;
}

void ledger_write(struct ledger *ledger, const struct ledger_entry *entry)
{
    int64_t now_ms = clock_now_ms();
    bool changed = has_changed(ledger, entry);
    /* Of thousands that come and go, once a second is enough. */
    changed =
        changed || (entry->held != ledger->held && now_ms >= ledger->write_at_ms - EVERY_MS + HOLDS_EVERY_MS);
    if ((!changed && now_ms < ledger->write_at_ms) || !connect_if_due(ledger)) {
        return;
    }
    char next_try[24];
    (void)snprintf(next_try, sizeof next_try, "%lld", (long long)entry->next_try_in_ms);
    const char *const values[] = {ledger->options.instance,
                                  RELAY_VERSION,
                                  ledger->options.backend,
                                  ledger->host,
                                  ledger->pid,
                                  entry->state,
                                  entry->reason,
                                  entry->holds,
                                  entry->last_error,
                                  entry->next_try_in_ms >= 0 ? next_try : NULL};
    ledger->held = entry->held;
    run(ledger, sql_ledger_write, 10, values);
    ledger->write_at_ms = clock_now_ms() + EVERY_MS;
}

/* The numbers of seconds in a sentence change by themselves. */
static uint64_t hash_of(const char *sentence)
{
    uint64_t hash = 0;
    for (const char *at = strstr(sentence, "process "); at && *at && *at != ')'; at++) {
        hash = hash * 31 + (unsigned char)*at;
    }
    return hash;
}

struct look {
    struct ledger *ledger;
    uint64_t seen;
};

static void see_stranger(void *context, const char *sentence)
{
    struct look *look = context;
    uint64_t hash = hash_of(sentence);
    if (look->seen == 0 && hash != look->ledger->strangers) { /* the worst one, once */
        char clean[400];
        printable_copy(clean, sizeof clean, bytes_of(sentence));
        LOG(look->ledger->options.log, LOG_WARNING, "somebody stands in the way", log_text("who", clean));
    }
    look->seen = look->seen ? look->seen : hash;
}

void ledger_look_around(struct ledger *ledger)
{
    struct look look = {ledger, 0};
    struct err err = {0};
    if (!ledger->pg || clock_now_ms() < ledger->look_at_ms) {
        return;
    }
    ledger->look_at_ms = clock_now_ms() + EVERY_MS;
    if (inspect_strangers(ledger->pg, see_stranger, &look, clock_now_ms() + ANSWER_MS, &err) == 0) {
        ledger->strangers = look.seen;
    } else if (err.class == ERR_CONNECTION || err.class == ERR_STOPPED) {
        give_up(ledger, &err);
    } else {
        ledger->look_at_ms = clock_now_ms() + LOOK_AGAIN_MS; /* it is only to help, and costs too much now */
        LOG(ledger->options.log, LOG_DEBUG, "cannot tell who stands in the way", log_text("error", err.text));
    }
}

void ledger_free(struct ledger *ledger)
{
    if (ledger) {
        if (ledger->pg) {
            const char *const values[] = {ledger->options.instance, ledger->host, ledger->pid};
            run(ledger, sql_ledger_remove, 3, values);
        }
        pg_close(ledger->pg);
        text_finish(&ledger->written);
        free(ledger);
    }
}
