-- A row that is written every 10 s waits for no standby. $1 instance, $2 version, $3 backend, $4 host, $5 pid, $6 state, $7 reason, $8 holds, $9 last error, $10 next try in ms (or NULL).
-- Returns who wrote it lately under the same name.
WITH before AS (
  SELECT host, pid FROM outbox.relay WHERE instance = $1 AND (host, pid) <> ($4, $5::int) AND seen_at > clock_timestamp() - interval '30 seconds'
), written AS (
INSERT INTO outbox.relay AS r (instance, version, backend, host, pid, state, reason, holds, last_error, next_try_at)
SELECT $1, $2, $3, $4, $5::int, $6, $7, $8::jsonb, $9, clock_timestamp() + $10::bigint * interval '1 millisecond'
FROM set_config('synchronous_commit', 'local', true) mode WHERE mode = 'local'
ON CONFLICT (instance) DO UPDATE SET
  version = excluded.version, backend = excluded.backend, host = excluded.host, pid = excluded.pid,
  since = CASE WHEN r.state = excluded.state AND r.pid = excluded.pid THEN r.since ELSE clock_timestamp() END,
  started_at = CASE WHEN r.pid = excluded.pid THEN r.started_at ELSE clock_timestamp() END,
  state = excluded.state, reason = excluded.reason, holds = excluded.holds, last_error = excluded.last_error,
  next_try_at = excluded.next_try_at, seen_at = clock_timestamp()
)
SELECT host, pid FROM before
