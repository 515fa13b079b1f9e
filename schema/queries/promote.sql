-- Delayed messages that are due enter outbox.message with a new seq. $1 rows at most, $2 bytes at most (one always), $3 lanes - 1 where order is by key
-- (NULL = no order). Who gives out a seq holds the lane of its key until COMMIT: nobody claims a later row of the key before this one is there to be
-- seen. A lane that somebody else holds leaves its rows for the next time; of the due ones, 5,000 are looked at for lanes to take. Says how many; what did not
-- arrive did not leave, either: the cast fails then, and with it all of it.
WITH wanted AS MATERIALIZED (
  SELECT DISTINCT (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $3::bigint AS lane
  FROM (SELECT channel, key FROM outbox.scheduled WHERE $3::bigint IS NOT NULL AND due_at <= clock_timestamp() AND seq IS NULL AND key IS NOT NULL
        ORDER BY due_at, entry LIMIT 5000) looked
), obtained AS MATERIALIZED (
  SELECT lane FROM wanted WHERE pg_try_advisory_xact_lock('outbox.message'::regclass::oid::int, lane::int)
), due AS MATERIALIZED (
  SELECT entry, bytes, due_at FROM outbox.scheduled WHERE due_at <= clock_timestamp() AND seq IS NULL
    AND ($3::bigint IS NULL OR key IS NULL
         OR (hashtextextended(channel, 0) # hashtextextended(key, 0)) & $3::bigint IN (SELECT lane FROM obtained))
  ORDER BY due_at, entry LIMIT $1::int FOR UPDATE SKIP LOCKED
), prefix AS MATERIALIZED (
  SELECT entry FROM (SELECT entry, row_number() OVER w AS place, sum(bytes) OVER w AS total FROM due WINDOW w AS (ORDER BY due_at, entry)) s
  WHERE place = 1 OR total <= $2::bigint
), moved AS (
  DELETE FROM outbox.scheduled s USING prefix WHERE s.entry = prefix.entry
  RETURNING s.*
), arrived AS (
  INSERT INTO outbox.message (id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
                              payload, payload_bytes, created_at, expires_at)
  SELECT id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
         payload, payload_bytes, created_at, expires_at
  FROM moved ORDER BY due_at, entry
  RETURNING 1
)
SELECT CASE WHEN (SELECT count(*) FROM arrived) = (SELECT count(*) FROM moved) THEN (SELECT count(*) FROM arrived)
            ELSE ('a trigger, a rule or a policy keeps rows out of outbox.message; of ' || (SELECT count(*) FROM moved) || ' not all arrived')::bigint END
