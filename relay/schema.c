#include "schema.h"

#include <string.h>

#include "clock.h"
#include "sql.h"
#include "version.h"

/* Migrations may rewrite tables: they get time. */
enum { WITHIN_MS = 600000, QUESTION_MS = 15000 };

static const char *const migrations[] = {sql_0001_outbox};
enum { NEWEST = sizeof migrations / sizeof migrations[0] };

int schema_newest(void)
{
    return NEWEST;
}

void schema_roles(struct text *out)
{
    text_add(out, sql_roles);
    text_add(out, sql_grants);
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

int schema_installed(struct pg *pg, int *version, struct err *err)
{
    struct pg_rows *rows = NULL;
    *version = 0;
    if (pg_query(pg, "SELECT to_regclass('outbox.schema_version') IS NOT NULL", 0, NULL, &rows,
                 clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    bool exists = pg_number(rows, 0, 0, 0) == 1;
    pg_rows_free(rows);
    if (!exists) {
        return 0;
    }
    if (pg_query(pg, "SELECT coalesce(max(version), 0) FROM outbox.schema_version", 0, NULL, &rows,
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

/* Looks again under the lock, then migrates. */
static int apply(struct pg *pg, struct schema_report *report, struct err *err)
{
    if (schema_installed(pg, &report->before, err) != 0) {
        return -1;
    }
    if (report->before > NEWEST) {
        return refuse_newer(report->before, err);
    }
    for (int at = report->before; at < NEWEST; at++) {
        if (pg_script(pg, migrations[at], clock_now_ms() + WITHIN_MS, err) != 0) {
            return err_prefix(err, "migration %d", at + 1);
        }
    }
    static const char *const values[] = {RELAY_VERSION};
    return pg_query(pg, "UPDATE outbox.schema_version SET relay_version = $1 WHERE relay_version IS NULL", 1,
                    values, NULL, clock_now_ms() + QUESTION_MS, err);
}

/* Under an advisory lock that ends with the transaction: a session's would not survive a pooler. */
static int in_transaction(struct pg *pg, int (*work)(struct pg *, struct schema_report *, struct err *),
                          struct schema_report *report, struct err *err)
{
    static const char lock[] = "SELECT pg_advisory_xact_lock(hashtext('outbox-relay migrate'))";
    if (pg_query(pg, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL, NULL, clock_now_ms() + QUESTION_MS,
                 err) != 0) {
        return -1;
    }
    if (pg_query(pg, lock, 0, NULL, NULL, clock_now_ms() + WITHIN_MS, err) != 0 ||
        work(pg, report, err) != 0) {
        struct err ignored = {0}; /* the first error is the one to tell */
        (void)!pg_query(pg, "ROLLBACK", 0, NULL, NULL, clock_now_ms() + QUESTION_MS, &ignored);
        return -1;
    }
    return pg_query(pg, "COMMIT", 0, NULL, NULL, clock_now_ms() + QUESTION_MS, err);
}

static int grant(struct pg *pg, struct schema_report *report, struct err *err)
{
    (void)report;
    if (pg_script(pg, sql_roles, clock_now_ms() + QUESTION_MS, err) != 0) {
        return -1;
    }
    return pg_script(pg, sql_grants, clock_now_ms() + QUESTION_MS, err);
}

int schema_migrate(struct pg *pg, struct schema_report *report, struct err *err)
{
    *report = (struct schema_report){0};
    if (in_transaction(pg, apply, report, err) != 0) {
        return -1;
    }
    report->after = NEWEST;
    struct err refused = {0};
    if (in_transaction(pg, grant, report, &refused) == 0) {
        report->roles_exist = true;
        return 0;
    }
    if (strcmp(refused.sqlstate, "42501") == 0) {
        return 0; /* not allowed to create roles: the tables are there, the rest is for somebody who may */
    }
    *err = refused;
    return -1;
}
