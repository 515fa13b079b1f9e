-- Delayed messages that are due enter outbox.message with a new seq. $1 rows at most.
WITH due AS MATERIALIZED (
  SELECT entry FROM outbox.scheduled WHERE due_at <= clock_timestamp() AND seq IS NULL
  ORDER BY due_at, entry LIMIT $1::int FOR UPDATE SKIP LOCKED
), moved AS (
  DELETE FROM outbox.scheduled s USING due WHERE s.entry = due.entry
  RETURNING s.*
)
INSERT INTO outbox.message (id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
                            payload, payload_bytes, created_at, expires_at)
SELECT id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
       payload, payload_bytes, created_at, expires_at
FROM moved ORDER BY due_at, entry
