/*
 * The bare SQL loop that the relay is measured against: the same statements, pipelined the same way, and
 * nothing else.
 *
 *     bare_sql CONNINFO THREADS BATCH      until the table is empty; prints the number of rows
 */
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/sql.h"

enum { MAX_THREADS = 64, SEQ_BYTES = 24 };

static const char *conninfo;
static const char *batch_size;
static atomic_long rows_done;

static void fail(PGconn *conn, const char *what)
{
    (void)fprintf(stderr, "bare_sql: %s: %s\n", what, PQerrorMessage(conn));
    exit(EXIT_FAILURE);
}

static void send(PGconn *conn, const char *sql, int count, const char *const *values, int binary)
{
    if (PQsendQueryParams(conn, sql, count, NULL, values, NULL, NULL, binary) != 1) {
        fail(conn, "send");
    }
}

/* The next statement's result; the NULL behind it is eaten. */
static PGresult *receive(PGconn *conn)
{
    PGresult *result = PQgetResult(conn);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        fail(conn, "result");
    }
    PQclear(PQgetResult(conn));
    return result;
}

static void send_claim(PGconn *conn)
{
    static const char *const guards[] = {"15000", "2000", "10000", "75000"};
    const char *const claim[] = {"0", batch_size, "8388608", "{}", NULL, NULL, NULL, NULL};
    send(conn, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL, 0);
    send(conn, sql_guards, 4, guards, 0);
    send(conn, sql_table_locks, 0, NULL, 0);
    send(conn, sql_claim, 8, claim, 1);
}

static PGresult *receive_claim(PGconn *conn)
{
    PQclear(receive(conn));
    PQclear(receive(conn));
    PQclear(receive(conn));
    return receive(conn);
}

static void end_group(PGconn *conn)
{
    PGresult *result = PQgetResult(conn);
    if (PQresultStatus(result) != PGRES_PIPELINE_SYNC) {
        fail(conn, "sync");
    }
    PQclear(result);
}

static long long seq_of(const PGresult *claimed, int row)
{
    unsigned long long seq = 0;
    for (int at = 0; at < 8; at++) {
        seq = seq << 8 | (unsigned char)PQgetvalue(claimed, row, 0)[at];
    }
    return (long long)seq;
}

static void *run(void *unused)
{
    (void)unused;
    PGconn *conn = PQconnectdb(conninfo);
    if (PQstatus(conn) != CONNECTION_OK || PQenterPipelineMode(conn) != 1) {
        fail(conn, "connect");
    }
    send_claim(conn);
    (void)PQpipelineSync(conn);
    PGresult *claimed = receive_claim(conn);
    end_group(conn);
    char *seqs = malloc((size_t)atoi(batch_size) * SEQ_BYTES + 3);
    while (seqs && PQntuples(claimed) > 0) {
        size_t used = 0;
        for (int row = 0; row < PQntuples(claimed); row++) {
            used += (size_t)sprintf(seqs + used, "%c%lld", row ? ',' : '{', seq_of(claimed, row));
        }
        (void)strcpy(seqs + used, "}");
        long done = PQntuples(claimed);
        PQclear(claimed);
        const char *const values[] = {seqs};
        send(conn, sql_delete_confirmed, 1, values, 0);
        send(conn, "COMMIT", 0, NULL, 0);
        send_claim(conn);
        (void)PQpipelineSync(conn);
        PQclear(receive(conn));
        PQclear(receive(conn));
        claimed = receive_claim(conn);
        end_group(conn);
        atomic_fetch_add(&rows_done, done);
    }
    PQclear(claimed);
    free(seqs);
    PQfinish(conn);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[MAX_THREADS];
    if (argc != 4 || atoi(argv[2]) < 1 || atoi(argv[2]) > MAX_THREADS) {
        (void)fprintf(stderr, "bare_sql CONNINFO THREADS BATCH\n");
        return 64;
    }
    conninfo = argv[1];
    batch_size = argv[3];
    for (int at = 0; at < atoi(argv[2]); at++) {
        if (pthread_create(&threads[at], NULL, run, NULL) != 0) {
            return EXIT_FAILURE;
        }
    }
    for (int at = 0; at < atoi(argv[2]); at++) {
        (void)pthread_join(threads[at], NULL);
    }
    (void)printf("%ld\n", atomic_load(&rows_done));
    return EXIT_SUCCESS;
}
