-- First failures: from outbox.message to outbox.scheduled; they keep their seq. What expires sooner is due then, to be set aside.
-- $1 seqs, $2 waits in ms, $3 attempts, $4 solo, $5 errors, all of one length.
WITH failed AS (
  SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::boolean[], $5::text[]) AS f(seq, wait_ms, attempts, solo, error)
), moved AS (
  DELETE FROM outbox.message m USING failed f WHERE m.seq = f.seq RETURNING m.*
)
INSERT INTO outbox.scheduled (seq, id, kind, channel, type, key, correlation_id, causation_id, reply_to, content_type, headers,
  payload, payload_bytes, created_at, expires_at, bytes, due_at, attempts, tried_at, solo, last_error)
SELECT m.seq, m.id, m.kind, m.channel, m.type, m.key, m.correlation_id, m.causation_id, m.reply_to, m.content_type, m.headers,
  m.payload, m.payload_bytes, m.created_at, m.expires_at, m.bytes,
  least(clock_timestamp() + f.wait_ms * interval '1 millisecond', m.expires_at), f.attempts, clock_timestamp(), f.solo, f.error
FROM moved m JOIN failed f USING (seq)
