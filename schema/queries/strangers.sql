-- Who keeps the outbox from being what it is: a session that is none of a relay's and has locked the first row that waits, for some seconds; one that
-- holds the order's lanes; one whose old snapshot keeps dead rows in the tables; a sentence each, the worst first. Of others' sessions, a user who is no
-- member of pg_read_all_stats sees neither how long nor what they do. A relay reads outbox.paused_now before it locks rows, whatever it calls itself.
WITH head AS (
  SELECT seq, channel, xmax::text::bigint AS locker FROM outbox.message ORDER BY seq LIMIT 1
), sessions AS (
  SELECT pid, coalesce(nullif(application_name, ''), 'no application name') AS name, coalesce(usename, 'nobody') AS who, backend_xid::text::bigint AS xid,
    floor(extract(epoch FROM clock_timestamp() - xact_start))::bigint AS age_s, backend_xmin IS NOT NULL AS has_snapshot
  FROM pg_stat_activity a
  WHERE pid <> pg_backend_pid() AND application_name NOT LIKE 'outbox-relay%' AND datname = current_database()
    AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.relation = 'outbox.paused_now'::regclass)
)
SELECT 1 AS badness, format('the first message that waits (seq %s, channel %s) is locked by process %s (%s, user %s)%s: SELECT pg_terminate_backend(%s) ends it',
    h.seq, h.channel, s.pid, s.name, s.who, coalesce(format(', for %s s', s.age_s), ''), s.pid) AS sentence
FROM head h JOIN sessions s ON s.xid = h.locker
WHERE coalesce(s.age_s, 5) >= 5
UNION ALL
SELECT 2, format('lanes of the order are locked by process %s (%s, user %s), which is no relay: SELECT pg_terminate_backend(%s) ends it', s.pid, s.name, s.who, s.pid)
FROM sessions s
WHERE EXISTS (SELECT FROM pg_locks l WHERE l.pid = s.pid AND l.locktype = 'advisory' AND l.classid = 'outbox.message'::regclass::oid AND l.granted
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
UNION ALL
SELECT 3, format('process %s (%s, user %s) has kept a snapshot for %s s: dead rows stay in the tables, and claims grow slower', s.pid, s.name, s.who, s.age_s)
FROM sessions s
WHERE s.has_snapshot AND s.age_s >= 300
ORDER BY 1 LIMIT 20
