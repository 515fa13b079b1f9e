-- Who keeps the outbox from being what it is, a sentence each, the worst first: who has locked the first row that waits, or the first retry that is
-- due, for some seconds; who holds a table against writes; who holds the order's lanes; whose old snapshot keeps dead rows in the tables. A lock may be
-- a savepoint's or a prepared transaction's (which has no process), or be shared by several, of whom a row names none.
-- Of others' sessions, a user who is no member of pg_read_all_stats sees neither how long nor what they do. A relay calls itself so, or reads
-- outbox.paused_now before it locks rows; who may not delete messages is none, whatever he calls himself.
WITH heads AS (
  (SELECT 'message that waits' AS what, 'message' AS table_name, seq, channel, xmax::text::bigint AS locker FROM outbox.message ORDER BY message.seq LIMIT 1)
  UNION ALL
  (SELECT 'retry that is due', 'scheduled', seq, channel, xmax::text::bigint FROM outbox.scheduled
   WHERE due_at <= (SELECT clock_timestamp()) AND scheduled.seq IS NOT NULL ORDER BY due_at LIMIT 1)
), locks AS (
  SELECT pid, locktype, relation, mode, classid, database, transactionid::text::bigint AS xid, virtualtransaction FROM pg_locks WHERE granted
), sessions AS (
  SELECT pid, format('process %s (%s, user %I)', pid, coalesce(quote_literal(nullif(application_name, '')), 'no application name'), coalesce(usename, 'nobody')) AS name,
    floor(extract(epoch FROM clock_timestamp() - xact_start))::bigint AS age_s, backend_xmin IS NOT NULL AS has_snapshot,
    format('SELECT pg_terminate_backend(%s)', pid) AS remedy
  FROM pg_stat_activity a
  WHERE pid <> pg_backend_pid() AND datname = current_database()
    AND (NOT EXISTS (SELECT FROM pg_roles r WHERE pg_has_role(a.usesysid, r.oid, 'MEMBER') AND has_table_privilege(r.oid, 'outbox.message'::regclass, 'DELETE'))
      OR (application_name NOT LIKE 'outbox-relay%'
        AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.relation = 'outbox.paused_now'::regclass)))
), prepared AS (
  SELECT l.virtualtransaction, format('prepared transaction %I (user %I)', gid, owner) AS name,
    floor(extract(epoch FROM clock_timestamp() - prepared))::bigint AS age_s, format('ROLLBACK PREPARED %L, or COMMIT PREPARED,', gid) AS remedy
  FROM pg_prepared_xacts p JOIN locks l ON l.pid IS NULL AND l.locktype = 'transactionid' AND l.xid = p.transaction::text::bigint
  WHERE p.database = current_database()
), holders AS (
  SELECT l.*, s.name, s.age_s, s.remedy FROM locks l JOIN sessions s USING (pid)
  UNION ALL
  SELECT l.*, p.name, p.age_s, p.remedy FROM locks l JOIN prepared p USING (virtualtransaction) WHERE l.pid IS NULL
), lockers AS (
  SELECT DISTINCT h.what, h.seq, h.channel, o.name, o.age_s, o.remedy FROM heads h JOIN holders o ON o.locktype = 'transactionid' AND o.xid = h.locker
)
SELECT 1 AS badness, format('the first %s (seq %s, channel %I) is locked by %s%s: %s ends it', what, seq, channel, name,
    coalesce(', for ' || age_s || ' s', ''), remedy) AS sentence
FROM lockers WHERE coalesce(age_s, 5) >= 5
UNION ALL
SELECT DISTINCT 2, format('rows of outbox.%s are locked by %s, for %s s; the first %s may be one of them: %s ends it', h.table_name, o.name, o.age_s, h.what, o.remedy)
FROM heads h JOIN holders o ON o.locktype = 'relation' AND o.relation = ('outbox.' || h.table_name)::regclass AND o.mode = 'RowShareLock'
WHERE h.locker <> 0 AND o.age_s >= 5 AND NOT EXISTS (SELECT FROM lockers l WHERE l.what = h.what)
  AND NOT EXISTS (SELECT FROM locks l WHERE l.locktype = 'transactionid' AND l.xid = h.locker)
UNION ALL
SELECT DISTINCT 3, format('table %s is locked against writes by %s, for %s s: %s ends it', relation::regclass, name, age_s, remedy)
FROM holders
WHERE locktype = 'relation' AND relation IN ('outbox.message'::regclass, 'outbox.scheduled'::regclass, 'outbox.dead_letter'::regclass)
  AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') AND age_s >= 5
UNION ALL
SELECT DISTINCT 4, format('lanes of the order are locked by %s, which is no relay: %s ends it', name, remedy)
FROM holders
WHERE locktype = 'advisory' AND classid = 'outbox.message'::regclass::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 5, format('%s has kept a snapshot for %s s: dead rows stay in the tables, and claims grow slower', name, age_s)
FROM (SELECT name, age_s FROM sessions WHERE has_snapshot UNION ALL SELECT name, age_s FROM prepared) s
WHERE age_s >= 300
ORDER BY 1, 2 LIMIT 20
