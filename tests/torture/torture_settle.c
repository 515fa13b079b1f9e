/*
 * torture_settle - the fates of a batch as statements, in a shortage of memory: each statement that is sent
 * is whole and names the rows that the fates name; where one is missing, an error or a rollback says so.
 */
#include <string.h>

#include "base/log.h"
#include "failing.h"
#include "fake_pg.h"
#include "store/settle.h"
#include "store/sql.h"

enum { ROWS = 60 };

static struct batch batch;
static bool with_moves;

static enum row_fate fate_of(size_t at)
{
    static const enum row_fate fates[] = {ROW_DELETED, ROW_STAYS, ROW_SCHEDULED, ROW_BURIED};
    return with_moves ? fates[at % 4] : at % 3 == 0 ? ROW_STAYS : ROW_DELETED;
}

/* Every other one of a fate stands in outbox.scheduled; long seqs, so that the texts have to grow. */
static void fill_batch(void)
{
    struct err err = {0};
    PROMISE(batch_init(&batch, ROWS, &err) == 0, "a batch");
    for (size_t at = 0; at < ROWS; at++) {
        struct row *row = batch_add(&batch);
        row->message.seq = 1000000000000000000 + (int64_t)at;
        row->entry = at / 4 % 2 ? 2000000000000000000 + (int64_t)at : 0;
        row->wait_ms = 100 * (int64_t)at;
        row->attempts = (uint32_t)at;
        row->error = "a \"reason\" with \\ in it";
        row->burial = "attempts";
        row->fate = fate_of(at);
    }
}

/* ---- what is wanted, by a second, plainer way ---- */

static void want_value(const struct row *row, const char *sql, size_t value, char *out, size_t out_bytes)
{
    static const char quoted[] = "\"a \\\"reason\\\" with \\\\ in it\"";
    bool bury = sql == sql_bury || sql == sql_bury_scheduled;
    const char *text = value == 3   ? bury ? quoted : "\"f\""
                       : value == 4 ? quoted
                       : bury       ? "\"attempts\""
                                    : NULL;
    long long number = value == 0   ? (row->entry ? row->entry : row->message.seq)
                       : value == 1 ? (bury ? (long long)row->attempts : row->wait_ms)
                                    : (long long)row->attempts;
    bool is_text = value >= 3 || (value == 2 && bury);
    (void)(is_text ? snprintf(out, out_bytes, "%s", text) : snprintf(out, out_bytes, "%lld", number));
}

static void check_array(const char *sql, enum row_fate fate, bool scheduled, size_t value, const char *sent)
{
    char wanted[FAKE_VALUE_BYTES] = "{";
    for (size_t at = 0; at < ROWS; at++) {
        const struct row *row = &batch.rows[at];
        if (row->fate == fate && (row->entry != 0) == scheduled) {
            size_t used = strlen(wanted);
            used += (size_t)snprintf(wanted + used, sizeof wanted - used, "%s", used > 1 ? "," : "");
            want_value(row, sql, value, wanted + used, sizeof wanted - used);
        }
    }
    (void)snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), "}");
    PROMISE(strcmp(wanted, sent) == 0, "a statement names the rows that the fates name, whole");
}

static const struct {
    const char *sql;
    enum row_fate fate;
    bool scheduled;
    size_t arrays;
    size_t values;
} known[] = {{sql_delete_confirmed, ROW_DELETED, false, 1, 1},
             {sql_delete_confirmed_scheduled, ROW_DELETED, true, 1, 1},
             {sql_move_to_scheduled, ROW_SCHEDULED, false, 5, 5},
             {sql_bury, ROW_BURIED, false, 4, 5},
             {sql_reschedule, ROW_SCHEDULED, true, 5, 5},
             {sql_bury_scheduled, ROW_BURIED, true, 4, 5}};

enum { KNOWN = sizeof known / sizeof known[0] };

static void check_statements(bool complete, bool refused)
{
    size_t seen[KNOWN] = {0};
    bool rolled_back = false;
    for (size_t at = 0; at < fake_log.count; at++) {
        const struct fake_statement *statement = &fake_log.statements[at];
        rolled_back = rolled_back || strncmp(statement->sql, "ROLLBACK TO", 11) == 0;
        for (size_t which = 0; which < KNOWN; which++) {
            if (statement->sql == known[which].sql) {
                seen[which]++;
                PROMISE(statement->count == known[which].values, "all values of a statement");
                for (size_t value = 0; value < known[which].arrays; value++) {
                    check_array(statement->sql, known[which].fate, known[which].scheduled, value,
                                statement->values[value]);
                }
            }
        }
    }
    for (size_t which = 0; which < KNOWN; which++) {
        bool wanted = with_moves || known[which].fate == ROW_DELETED;
        PROMISE(seen[which] <= wanted, "each statement once");
        PROMISE(!complete || seen[which] == wanted || (refused && known[which].fate != ROW_DELETED),
                "no success without every statement");
    }
    PROMISE(rolled_back == (complete && refused), "moves that were refused are rolled back");
}

static void settle(void)
{
    static const struct log log = {LOG_ERROR, LOG_FORMAT_TEXT, -1};
    struct err err = {0};
    struct settled settled = {0};
    fake_log.count = 0;
    int result = settle_batch(NULL, &batch, "amqp", 0, &log, &settled, &err);
    if (result == 0) {
        result = settle_answers(NULL, &batch, 0, &settled, &err);
    }
    bool failed = failing_stop();
    PROMISE((result != 0) == (err.text[0] != '\0'), "who fails says why");
    PROMISE(failed || (result == 0 && !settled.refused), "without a shortage everything is settled");
    check_statements(result == 0, settled.refused);
}

int main(void)
{
    for (int moves = 0; moves <= 1; moves++) {
        with_moves = moves;
        fill_batch();
        torture(moves ? "settle with moves" : "settle", settle);
        batch_finish(&batch);
    }
    return 0;
}
