#include "store/schema.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/printable.h"
#include "base/version.h"
#include "store/limits.h"
#include "store/sql.h"

/* Migrations may rewrite tables: they get time. */
enum {
    WITHIN_MS = 600000,
    QUESTION_MS = 15000,
    PATIENT_MS = 5000, /* so long nobody is told that we wait for another */
    ORDER_MAX_BYTES = 64 << 10,
    HOLDER_MAX_BYTES = 4 << 10,
    TRY_FOR_MS = 60000,
    PAUSE_NS = 300000000
};

static const char *const migrations[] = {sql_0001_outbox, sql_0002_paused_now, sql_0003_pause_patterns,
                                         sql_0004_subscriber_owner, sql_0005_bounds};
enum { NEWEST = sizeof migrations / sizeof migrations[0] };

int schema_newest(void)
{
    return NEWEST;
}

void schema_roles(struct text *out)
{
    text_addf(out, "BEGIN;\n%s%sCOMMIT;\n", sql_roles, sql_grants);
}

void schema_print(struct text *out, int installed)
{
    for (int at = installed; at < NEWEST; at++) {
        text_addf(out,
                  "BEGIN;\n%sUPDATE outbox.schema_version SET relay_version = '%s' WHERE version = "
                  "%d;\nCOMMIT;\n\n",
                  migrations[at], RELAY_VERSION, at + 1);
    }
    schema_roles(out);
}

/* A schema of that name may be somebody else's: its table must look like ours before it is asked. */
static int find_version_table(struct pg *pg, bool *exists, struct err *err)
{
    static const char question[] =
        "SELECT c.oid IS NOT NULL, count(a.attname) = 2"
        " FROM (SELECT pg_catalog.to_regclass('outbox.schema_version') AS oid) c"
        " LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped"
        " AND (a.attname, a.atttypid) IN (('version', 'pg_catalog.int4'::pg_catalog.regtype),"
        " ('relay_version', 'pg_catalog.text'::pg_catalog.regtype))"
        " GROUP BY c.oid";
    struct pg_rows *rows = NULL;
    if (limits_query(pg, question, 0, NULL, &rows, clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    *exists = pg_number(rows, 0, 0, 0) == 1;
    bool ours = pg_number(rows, 0, 1, 0) == 1;
    pg_rows_free(rows);
    if (*exists && !ours) {
        return err_set(err, ERR_CONFIG,
                       "schema outbox of this database is somebody else's: its table schema_version is not "
                       "ours: give the outbox another database, or rename that schema");
    }
    return 0;
}

int schema_installed(struct pg *pg, int *version, struct err *err)
{
    struct pg_rows *rows = NULL;
    bool exists = false;
    *version = 0;
    if (find_version_table(pg, &exists, err) != 0) {
        return -1;
    }
    if (!exists) {
        return 0;
    }
    if (limits_query(pg, "SELECT coalesce(max(version), 0) FROM outbox.schema_version", 0, NULL, &rows,
                     clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    *version = (int)pg_number(rows, 0, 0, 0);
    pg_rows_free(rows);
    return 0;
}

static int refuse_newer(int version, struct err *err)
{
    return err_set(
        err, ERR_CONFIG,
        "schema outbox has version %d, this outbox-relay %s knows up to %d: install a newer outbox-relay",
        version, RELAY_VERSION, NEWEST);
}

int schema_check(struct pg *pg, struct err *err)
{
    int version = 0;
    if (schema_installed(pg, &version, err) != 0) {
        return -1;
    }
    if (version == 0) {
        return err_set(
            err, ERR_CONFIG,
            "schema outbox is not installed in this database: run 'outbox-relay migrate' as its owner");
    }
    if (version > NEWEST) {
        return refuse_newer(version, err);
    }
    if (version < NEWEST) {
        return err_set(err, ERR_CONFIG,
                       "schema outbox has version %d, this outbox-relay needs %d: run 'outbox-relay migrate'",
                       version, NEWEST);
    }
    return 0;
}

int schema_explain(struct err *err)
{
    /* What somebody's trigger misses is not ours. */
    bool within = strstr(err->text, " in function ") != NULL;
    bool gone = !within && ((strcmp(err->sqlstate, "42P01") == 0 && strstr(err->text, "outbox.")) ||
                            (strcmp(err->sqlstate, "3F000") == 0 && strstr(err->text, "outbox")));
    if (gone) {
        struct err before = *err;
        err_clear(err);
        (void)err_set(
            err, ERR_CONFIG,
            "schema outbox is not installed in this database any more: run 'outbox-relay migrate' as "
            "its owner (%s)",
            before.text);
        memcpy(err->sqlstate, before.sqlstate, sizeof err->sqlstate);
    }
    return -1;
}

/* What is in the schema runs with the rights of whoever migrates it. */
int schema_check_owner(struct pg *pg, struct err *err)
{
    static const char *const values[] = {"t"};
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_foreign_objects, 1, values, &rows, clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    char first[400];
    bool found = pg_rows_count(rows) > 0;
    printable_copy(first, sizeof first, found ? pg_value(rows, 0, 0) : bytes_of(""));
    pg_rows_free(rows);
    return found ? err_set(err, ERR_CONFIG, "schema outbox is not this user's alone: %s", first) : 0;
}

/* Looks again under the lock, then migrates. */
static int apply(struct pg *pg, void *context, struct err *err)
{
    struct schema_report *report = context;
    if (schema_check_owner(pg, err) != 0 || schema_installed(pg, &report->before, err) != 0) {
        return -1;
    }
    if (report->before > NEWEST) {
        return refuse_newer(report->before, err);
    }
    for (int at = report->before; at < NEWEST; at++) {
        if (limits_script(pg, migrations[at], clock_now_ms() + WITHIN_MS, err) != 0) {
            return err_prefix(err, "migration %d", at + 1);
        }
    }
    static const char *const values[] = {RELAY_VERSION};
    return limits_query(pg, "UPDATE outbox.schema_version SET relay_version = $1 WHERE relay_version IS NULL",
                        1, values, NULL, clock_now_ms() + QUESTION_MS, err);
}

static void roll_back(struct pg *pg, const struct err *err)
{
    if (err->class != ERR_CONNECTION) { /* else the connection is good for closing only */
        struct err ignored = {0};       /* the first error is the one to tell */
        (void)!pg_query(pg, "ROLLBACK", 0, NULL, NULL, clock_now_ms() + QUESTION_MS, &ignored);
    }
}

/* Begins a transaction under an advisory lock that ends with it: a session's would not survive a pooler. */
static int begin_locked(struct pg *pg, int64_t within_ms, struct err *err)
{
    static const char lock[] = "SELECT pg_advisory_xact_lock(hashtext('outbox-relay migrate'))";
    if (limits_begin(pg, clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    if (limits_query(pg, lock, 0, NULL, NULL, clock_now_ms() + within_ms, err) != 0) {
        roll_back(pg, err);
        return -1;
    }
    return 0;
}

/* False, and nothing told, where the server does not say. */
static bool find_holder(struct pg *pg, struct text *holder)
{
    struct err ignored = {0}; /* who could not be asked is not named */
    struct pg_rows *rows = NULL;
    bool found =
        limits_query(pg, sql_migrating, 0, NULL, &rows, clock_now_ms() + QUESTION_MS, &ignored) == 0 &&
        pg_rows_count(rows) == 1;
    if (found) {
        text_add_printable(holder, pg_value(rows, 0, 0));
    }
    pg_rows_free(rows);
    return found;
}

/* Another migrate may take its time, and anybody may have taken the lock: who waits for long says for whom.
 */
static int take_turn(struct pg *pg, schema_waits *waits, struct err *err)
{
    static const char timed_out[] = "57014";
    struct text holder;
    if (begin_locked(pg, PATIENT_MS, err) == 0) {
        return 0;
    }
    if (strcmp(err->sqlstate, timed_out) != 0) {
        return -1;
    }
    text_init(&holder, HOLDER_MAX_BYTES);
    bool known = find_holder(pg, &holder);
    if (known) {
        waits(text_get(&holder));
    }
    err_clear(err);
    int result = begin_locked(pg, WITHIN_MS, err);
    if (result != 0 && known && strcmp(err->sqlstate, timed_out) == 0) {
        result = err_prefix(err, "the lock of migrate is held by %s", text_get(&holder));
    }
    text_finish(&holder);
    return result;
}

static int in_transaction(struct pg *pg, schema_waits *waits, int (*work)(struct pg *, void *, struct err *),
                          void *context, struct err *err)
{
    if (take_turn(pg, waits, err) != 0) {
        return -1;
    }
    if (work(pg, context, err) == 0) {
        return limits_query(pg, "COMMIT", 0, NULL, NULL, clock_now_ms() + QUESTION_MS, err);
    }
    roll_back(pg, err);
    return -1;
}

/* The same, again and again while somebody else holds a lock on one of the tables: to wait for it would make
 * all others wait. */
static int when_quiet(struct pg *pg, schema_waits *waits, int (*work)(struct pg *, void *, struct err *),
                      void *context, struct err *err)
{
    int64_t give_up_ms = clock_now_ms() + TRY_FOR_MS;
    while (in_transaction(pg, waits, work, context, err) != 0) {
        bool locked = strcmp(err->sqlstate, "55P03") == 0 || strcmp(err->sqlstate, "40P01") == 0;
        if (!locked || clock_now_ms() >= give_up_ms) {
            return locked
                       ? err_prefix(
                             err, "somebody is always in a transaction on the outbox: try when it is quieter")
                       : -1;
        }
        err_clear(err);
        static const struct timespec pause = {.tv_nsec = PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
    return 0;
}

static int grant(struct pg *pg, void *context, struct err *err)
{
    (void)context;
    if (limits_script(pg, sql_roles, clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    return limits_script(pg, sql_grants, clock_now_ms() + QUESTION_MS, err);
}

int schema_migrate(struct pg *pg, schema_waits *waits, struct schema_report *report, struct err *err)
{
    *report = (struct schema_report){0};
    if (when_quiet(pg, waits, apply, report, err) != 0) {
        return -1;
    }
    report->after = NEWEST;
    struct err refused = {0};
    if (in_transaction(pg, waits, grant, NULL, &refused) == 0) {
        report->roles_exist = true;
        return 0;
    }
    if (strcmp(refused.sqlstate, "42501") == 0) {
        return 0; /* not allowed to create roles: the tables are there, the rest is for somebody who may */
    }
    *err = refused;
    return -1;
}

/* ---- order ---- */

int schema_read_order(struct pg *pg, struct schema_order *order, struct err *err)
{
    struct pg_rows *rows = NULL;
    if (limits_query(pg, sql_order, 0, NULL, &rows, clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    order->by_key = pg_number(rows, 0, 0, 0) == 1;
    order->lanes = pg_number(rows, 0, 1, 0);
    pg_rows_free(rows);
    return 0;
}

static bool is_sensible(const struct schema_order *order)
{
    return !order->by_key ||
           (order->lanes > 0 && order->lanes <= SCHEMA_MAX_LANES && (order->lanes & (order->lanes - 1)) == 0);
}

int schema_check_order(const struct schema_order *order, bool by_key, struct err *err)
{
    if (!is_sensible(order)) {
        return err_set(
            err, ERR_CONFIG,
            "outbox.setting says %lld lanes: run 'outbox-relay migrate --order key --lanes N' with a power "
            "of two up to %d",
            (long long)order->lanes, SCHEMA_MAX_LANES);
    }
    if (order->by_key && !by_key) {
        return err_set(
            err, ERR_CONFIG,
            "this outbox is ordered by key, and this relay's configuration says order: none: write order: "
            "key, or run 'outbox-relay migrate --order none'");
    }
    if (!order->by_key && by_key) {
        return err_set(err, ERR_CONFIG,
                       "this relay's configuration says order: key, and this outbox is not ordered: run "
                       "'outbox-relay migrate --order key', or write order: none");
    }
    return 0;
}

/* The file names the mask as psql variables are named. */
void schema_print_order(struct text *out, const struct schema_order *order)
{
    static const char name[] = ":mask";
    const char *rest = order->by_key ? sql_order_key : sql_order_none;
    for (const char *at = strstr(rest, name); at; at = strstr(rest, name)) {
        text_add_bytes(out, (struct bytes){rest, (size_t)(at - rest)});
        text_add_number(out, order->lanes - 1);
        rest = at + sizeof name - 1;
    }
    text_add(out, rest);
}

int schema_check_lanes(const struct schema_order *order, struct err *err)
{
    return is_sensible(order) ? 0
                              : err_set(err, ERR_USAGE, "--lanes: %lld is not a power of two from 1 to %d",
                                        (long long)order->lanes, SCHEMA_MAX_LANES);
}

struct order_change {
    struct schema_order wanted;
    bool changed;
};

static int change_order(struct pg *pg, void *context, struct err *err)
{
    struct order_change *change = context;
    struct schema_order now;
    if (schema_check_owner(pg, err) != 0 || schema_read_order(pg, &now, err) != 0) {
        return -1;
    }
    change->changed = now.by_key != change->wanted.by_key || now.lanes != change->wanted.lanes;
    if (!change->changed) {
        return 0;
    }
    struct text sql;
    text_init(&sql, ORDER_MAX_BYTES);
    schema_print_order(&sql, &change->wanted);
    int result = limits_script(pg, text_get(&sql), clock_now_ms() + WITHIN_MS, err);
    text_finish(&sql);
    return result;
}

int schema_set_order(struct pg *pg, const struct schema_order *order, schema_waits *waits, bool *changed,
                     struct err *err)
{
    struct order_change change = {.wanted = *order};
    *changed = false;
    if (schema_check_lanes(order, err) != 0) {
        return -1;
    }
    if (when_quiet(pg, waits, change_order, &change, err) != 0) {
        return -1;
    }
    *changed = change.changed;
    return 0;
}
